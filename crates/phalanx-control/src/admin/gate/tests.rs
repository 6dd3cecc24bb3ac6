use super::*;

fn judged(
    gate: &Gate,
    method: &Method,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(), Refusal> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    gate.judge(method, None, path, &map)
}

fn local() -> Gate {
    Gate::new(None)
}

fn with_token() -> Gate {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "0123456789abcdef").unwrap();
    Gate::new(Some(Token::read(&path).unwrap()))
}

#[test]
fn without_a_token_only_this_machines_own_names_are_answered() {
    let ask = |host: &str| judged(&local(), &Method::GET, "/v1/status", &[("host", host)]);
    for good in [
        "localhost",
        "LocalHost:9900",
        "127.0.0.1:9900",
        "127.9.9.9",
        "[::1]:8000",
        "[::1]",
    ] {
        assert_eq!(ask(good), Ok(()), "{good}");
    }
    for bad in [
        "evil.example",
        "evil.example:9900",
        "localhost.evil.example",
        "127.0.0.1.evil.example:9900",
        "10.0.0.1:9900",
        "[::2]:9900",
        "",
        ":9900",
        "localhost:9900:1",
        "127.0.0.1:evil",
        "user@localhost",
        "0x7f.1",
        "2130706433",
    ] {
        assert_eq!(ask(bad), Err(Refusal::Host), "{bad}");
    }
    assert_eq!(judged(&local(), &Method::GET, "/", &[]), Err(Refusal::Host));
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(
        judged(&local(), &Method::GET, "/", &twice),
        Err(Refusal::Host)
    );
    let mut headers = HeaderMap::new();
    headers.insert(HOST, "localhost:1".parse().unwrap());
    let of_another = local().judge(&Method::GET, Some("evil.example"), "/", &headers);
    assert_eq!(of_another, Err(Refusal::Host));
}

#[test]
fn pages_of_other_origins_get_nothing() {
    let host = ("host", "127.0.0.1:9900");
    for origin in [
        "http://evil.example",
        "null",
        "http://127.0.0.1:9901",
        "http://localhost:9900",
        "http://127.0.0.1",
        "file://127.0.0.1:9900",
        "",
    ] {
        for method in [Method::GET, Method::POST] {
            let asked = judged(&local(), &method, "/v1/reload", &[host, ("origin", origin)]);
            assert_eq!(asked, Err(Refusal::Origin), "{origin}");
        }
    }
    for site in ["cross-site", "same-site", "other"] {
        let asked = judged(
            &local(),
            &Method::GET,
            "/v1/events",
            &[host, ("sec-fetch-site", site)],
        );
        assert_eq!(asked, Err(Refusal::Origin), "{site}");
    }
    let link = judged(
        &local(),
        &Method::GET,
        "/",
        &[host, ("sec-fetch-site", "cross-site")],
    );
    assert_eq!(link, Ok(()), "a link may lead to the page");
}

#[test]
fn a_post_says_that_it_comes_from_the_page() {
    let host = ("host", "127.0.0.1:9900");
    let post = |headers: &[(&str, &str)]| judged(&local(), &Method::POST, "/v1/reload", headers);
    assert_eq!(post(&[host]), Err(Refusal::Origin));
    for origin in ["http://127.0.0.1:9900", "https://127.0.0.1:9900"] {
        assert_eq!(post(&[host, ("origin", origin)]), Ok(()));
    }
    let twice = [
        host,
        ("origin", "http://127.0.0.1:9900"),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(post(&twice), Err(Refusal::Origin));
    for method in [Method::PUT, Method::DELETE, Method::OPTIONS, Method::PATCH] {
        assert_eq!(
            judged(&local(), &method, "/", &[host]),
            Err(Refusal::Origin)
        );
    }
}

#[test]
fn with_a_token_the_page_is_for_all_and_the_api_for_who_has_it() {
    let gate = with_token();
    let host = ("host", "web1.example:9900");
    assert_eq!(judged(&gate, &Method::GET, "/", &[host]), Ok(()));
    let api = |authorization: &str, method: &Method| {
        judged(
            &gate,
            method,
            "/v1/status",
            &[host, ("authorization", authorization)],
        )
    };
    for method in [Method::GET, Method::POST] {
        assert_eq!(api("Bearer 0123456789abcdef", &method), Ok(()));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeg",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
            "bearer0123456789abcdef",
        ] {
            assert_eq!(api(wrong, &method), Err(Refusal::Token), "{wrong}");
        }
    }
    assert_eq!(
        judged(&gate, &Method::POST, "/v1/reload", &[host]),
        Err(Refusal::Token)
    );
    let foreign = [
        host,
        ("authorization", "Bearer 0123456789abcdef"),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(
        judged(&gate, &Method::POST, "/v1/reload", &foreign),
        Err(Refusal::Origin)
    );
    let twice = [
        host,
        ("authorization", "Bearer 0123456789abcdef"),
        ("authorization", "Bearer x"),
    ];
    assert_eq!(
        judged(&gate, &Method::GET, "/v1/status", &twice),
        Err(Refusal::Token)
    );
}
