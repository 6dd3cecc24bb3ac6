//! A headless Chromium, driven over `WebDriver` (<https://www.w3.org/TR/webdriver2/>) by plain HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use phalanx_testkit::wait::try_eventually;
use phalanx_testkit::{Process, require};
use serde_json::{Value, json};

/// A browser is many processes, and starts slowly on a busy machine.
const LIMIT: Duration = Duration::from_mins(3);

/// The name under which `WebDriver` hands elements out.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
pub(crate) struct Browser {
    port: u16,
    session: String,
    _driver: Process,
}

/// What the window shall be like.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) is_phone: bool,
    pub(crate) is_dark: bool,
}

pub(crate) const DESKTOP: Window = Window {
    width: 1280,
    height: 860,
    is_phone: false,
    is_dark: false,
};

impl Browser {
    /// Starts one. Nothing, and that is said, where Chromium or its driver is missing.
    #[track_caller]
    pub(crate) fn start(window: Window) -> Option<Self> {
        require("chromium")?;
        let driver = require("chromedriver")?;
        let mut command = Command::new(driver);
        command.arg("--port=0").env_remove("DISPLAY");
        let driver = Process::start(command);
        let line = driver.wait_for_line("started successfully on port ", LIMIT);
        let port = line.split("on port ").nth(1).expect("a port");
        let port = port.trim_end_matches(['.', '\n']).parse().expect("a port");
        let mut browser = Self {
            port,
            session: String::new(),
            _driver: driver,
        };
        let answer = browser.call("POST", "/session", &capabilities(window));
        let session = answer["sessionId"].as_str().expect("a session");
        session.clone_into(&mut browser.session);
        browser.dress(window);
        Some(browser)
    }

    fn dress(&self, window: Window) {
        let command = |name: &str, parameters: Value| {
            self.post(
                "/goog/cdp/execute",
                &json!({"cmd": name, "params": parameters}),
            );
        };
        let scale = if window.is_phone { 2 } else { 1 };
        let size = json!({"width": window.width, "height": window.height, "deviceScaleFactor": scale, "mobile": window.is_phone});
        command("Emulation.setDeviceMetricsOverride", size);
        let scheme = if window.is_dark { "dark" } else { "light" };
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        command("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// Opens a page.
    #[track_caller]
    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// What a script returns.
    #[track_caller]
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn wait_until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        let seen = try_eventually(LIMIT, || (self.run(&script) == true).then_some(()));
        if seen.is_none() {
            let page = self.run("return document.body.innerText");
            panic!("not true: {expression}\n{page}");
        }
    }

    /// Clicks what a selector of CSS finds.
    #[track_caller]
    pub(crate) fn click(&self, selector: &str) {
        let element = self.find(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Types into what a selector finds.
    #[track_caller]
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    #[track_caller]
    fn find(&self, selector: &str) -> String {
        let found = self.post(
            "/element",
            &json!({"using": "css selector", "value": selector}),
        );
        found[ELEMENT].as_str().expect("an element").to_owned()
    }

    /// What the console of the page has got: errors, what the policy of the page forbade.
    #[track_caller]
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().into_iter().flatten();
        entries.map(|entry| entry["message"].to_string()).collect()
    }

    /// A picture of the window, as a PNG.
    #[track_caller]
    pub(crate) fn picture(&self) -> Vec<u8> {
        let path = format!("/session/{}/screenshot", self.session);
        let picture = self.call("GET", &path, &Value::Null);
        decoded(picture.as_str().expect("base64"))
    }

    #[track_caller]
    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), body)
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the driver listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.port
        )
        .expect("the driver reads");
        let answer = answer_of(stream);
        let value = answer["value"].clone();
        assert!(value["error"].is_null(), "{method} {path}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser ends with its session; the driver would leave it behind.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let session = &self.session;
            drop(write!(
                stream,
                "DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
                self.port
            ));
            drop(stream.set_read_timeout(Some(LIMIT)));
            drop(stream.read(&mut [0; 64]));
        }
    }
}

fn capabilities(window: Window) -> Value {
    let size = format!("--window-size={},{}", window.width, window.height);
    let options = json!({"args": [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", size,
        "--host-resolver-rules=MAP evil.example 127.0.0.1",
    ]});
    json!({"capabilities": {"alwaysMatch": {
        "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"},
    }}})
}

fn answer_of(stream: TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("an answer");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole answer");
    serde_json::from_slice(&body).expect("JSON")
}

/// Base64 (RFC 4648), as far as the driver writes it.
fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sixes = text
        .bytes()
        .filter_map(|letter| LETTERS.iter().position(|one| *one == letter));
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0_usize, 0_u32);
    for six in sixes {
        held = (held << 6 | six) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).expect("eight bits"));
        }
    }
    bytes
}
