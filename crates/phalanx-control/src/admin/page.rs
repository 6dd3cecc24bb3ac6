//! What the page is made of. It is part of the program: nothing is fetched from elsewhere, and nothing is built.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// A part of the page.
pub(super) struct Asset {
    pub(super) path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of it.
pub(super) const ASSETS: [Asset; 8] = [
    asset("/", HTML, include_str!("page/index.html")),
    asset("/style.css", STYLE, include_str!("page/style.css")),
    asset("/main.js", SCRIPT, include_str!("page/main.js")),
    asset("/api.js", SCRIPT, include_str!("page/api.js")),
    asset("/state.js", SCRIPT, include_str!("page/state.js")),
    asset("/view.js", SCRIPT, include_str!("page/view.js")),
    asset("/flow.js", SCRIPT, include_str!("page/flow.js")),
    asset("/words.js", SCRIPT, include_str!("page/words.js")),
];

const fn asset(path: &'static str, kind: &'static str, text: &'static str) -> Asset {
    Asset { path, kind, text }
}

impl Asset {
    pub(super) fn response(&self) -> Response {
        let kind = HeaderValue::from_static(self.kind);
        ([(CONTENT_TYPE, kind)], self.text).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_asks_for_nothing_that_is_not_part_of_it() {
        for asset in &ASSETS {
            for far in [
                "https://",
                "//cdn",
                "@import",
                "eval(",
                "innerHTML",
                "onclick=",
            ] {
                assert!(!asset.text.contains(far), "{far} in {}", asset.path);
            }
            for reference in asset.text.split("from \"").skip(1) {
                let path = reference.split('"').next().unwrap();
                assert!(ASSETS.iter().any(|one| one.path == path), "{path}");
            }
        }
        let index = ASSETS[0].text;
        for reference in index
            .split("src=\"")
            .chain(index.split("rel=\"stylesheet\" href=\""))
            .skip(1)
        {
            let path = reference.split('"').next().unwrap();
            assert!(
                !path.starts_with('/') || ASSETS.iter().any(|one| one.path == path),
                "{path}"
            );
        }
        assert!(
            !index.contains(" style="),
            "the policy of the page forbids it"
        );
    }
}
