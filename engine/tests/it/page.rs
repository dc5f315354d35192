//! The staff page in a real browser: what people see moves when somebody passes a gate.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::receiver::{Mood, Receiver};
use crate::usher::Usher;
use crate::webhook::SQL;
use crate::{TestResult, peer, soon, until};

/// A way to the page on which the stream does not begin before it is let: what is on it, the server has not seen.
struct HeldStream {
    address: String,
    let_it: CancellationToken,
}

impl HeldStream {
    async fn before(http: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?.to_string();
        let (http, let_it) = (http.to_owned(), CancellationToken::new());
        let until = let_it.clone();
        tokio::spawn(async move {
            while let Ok((browser, _)) = listener.accept().await {
                // What the browser makes of a connection that breaks is what the test sees.
                tokio::spawn(Self::pass(browser, http.clone(), until.clone()));
            }
        });
        Ok(Self { address, let_it })
    }

    async fn pass(browser: TcpStream, http: String, until: CancellationToken) -> std::io::Result<()> {
        let (mut requests, mut to_browser) = browser.into_split();
        let (mut answers, mut to_server) = TcpStream::connect(http).await?.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to_browser).await });
        let mut part = vec![0; 64 << 10];
        loop {
            let read = requests.read(&mut part).await?;
            if read == 0 {
                return Ok(());
            }
            // A browser sends a request without a body in one piece.
            if part.starts_with(b"GET /api/v1/stream") {
                until.cancelled().await;
            }
            to_server.write_all(&part[..read]).await?;
        }
    }
}

/// A chromedriver on a free loopback port, and a headless Chromium behind it; dropping it ends both.
struct Browser {
    driver: Child,
    client: Client,
}

impl Browser {
    async fn start() -> Result<Option<Self>, Box<dyn std::error::Error>> {
        let (Some(driver), Some(chromium)) = (peer("chromedriver")?, peer("chromium")?) else {
            return Ok(None);
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let driver = Command::new(driver)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let options = json!({
            "goog:chromeOptions": {
                "binary": chromium,
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
                    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en"],
            },
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let capabilities = options.as_object().cloned().ok_or("an object")?;
        let url = format!("http://127.0.0.1:{port}");
        let connect = async || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            Ok(builder.capabilities(capabilities.clone()).connect(&url).await.ok())
        };
        let client = until("the browser", connect, Option::is_some)
            .await?
            .ok_or("a browser")?;
        Ok(Some(Self { driver, client }))
    }

    /// The only one of its kind, once it is there and can be seen.
    async fn seen(&self, css: &str) -> Result<fantoccini::elements::Element, Box<dyn std::error::Error>> {
        let found = async || {
            let element = self.client.find(Locator::Css(css)).await.ok();
            Ok(match element {
                Some(element) if element.is_displayed().await.unwrap_or(false) => Some(element),
                _ => None,
            })
        };
        until(css, found, Option::is_some).await?.ok_or("it was seen".into())
    }

    /// What has the keyboard, as `attribute` of it.
    async fn focused(&self, attribute: &str) -> Result<Option<String>, Box<dyn std::error::Error>> {
        Ok(self.client.active_element().await?.attr(attribute).await?)
    }

    /// Presses a key where the keyboard is.
    async fn press(&self, key: Key) -> TestResult {
        let key = String::from(char::from(key));
        self.client.active_element().await?.send_keys(&key).await?;
        Ok(())
    }

    /// Keeps what is to be seen for people to look at, in the folder that `USHER_SCREENSHOTS` names: in a wide window and in a
    /// narrow one.
    async fn show(&self, name: &str) -> TestResult {
        let Some(folder) = std::env::var_os("USHER_SCREENSHOTS") else {
            return Ok(());
        };
        for (width, height) in [(390, 844), (1440, 900)] {
            self.client.set_window_size(width, height).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            let path = std::path::Path::new(&folder).join(format!("{name}-{width}.png"));
            std::fs::write(path, self.client.screenshot().await?)?;
        }
        Ok(())
    }

    async fn text(&self, css: &str) -> Result<String, Box<dyn std::error::Error>> {
        match self.client.find(Locator::Css(css)).await {
            Ok(element) => Ok(element.text().await?),
            Err(_) => Ok(String::new()),
        }
    }

    /// What the page says of the engine, whether it is folded or not.
    async fn figures(&self) -> Result<Vec<String>, Box<dyn std::error::Error>> {
        let mut figures = Vec::new();
        for figure in self.client.find_all(Locator::Css("#health-figures dd")).await? {
            figures.push(figure.prop("textContent").await?.unwrap_or_default());
        }
        Ok(figures)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_moves_within_a_second_of_an_event() -> TestResult {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let usher = Usher::start()?;
    let gate = "usher/in/main/reading-room/gate/door-1";
    let persons = r#"[data-zone="reading-room"] [data-field="persons"]"#;
    usher
        .publish(gate, r#"{"id":"p1","ts":"2026-03-02T09:00:00+08:00","in":3}"#)
        .await?;
    browser.client.goto(&format!("http://{}/", usher.http)).await?;
    until("the count", || browser.text(persons), |text| text == "3").await?;

    usher
        .publish(gate, r#"{"id":"p2","ts":"2026-03-02T09:01:00+08:00","in":43}"#)
        .await?;
    let published = Instant::now();
    until("the new count", || browser.text(persons), |text| text == "46").await?;
    let moved = published.elapsed();
    assert!(moved < Duration::from_secs(1), "the page took {moved:?}");

    usher
        .publish(gate, r#"{"id":"p3","ts":"2026-03-02T09:01:11+08:00","in":0}"#)
        .await?;
    let button = r#"[data-alert-rule="zone_crowded"] [data-action="acknowledge"]"#;
    let alert = browser
        .client
        .wait()
        .at_most(crate::PATIENCE)
        .for_element(Locator::Css(button))
        .await?;
    alert.click().await?;
    until(
        "the acknowledgement",
        || usher.get("/api/v1/alerts?state=acknowledged"),
        |alerts| alerts["items"].as_array().is_some_and(|items| items.len() == 1),
    )
    .await?;
    let all_known = |figures: &Vec<String>| !figures.is_empty() && figures.iter().all(|figure| figure != "–");
    until("each figure of the engine", || browser.figures(), all_known).await?;
    soon("the end", browser.client.clone().close()).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_receiver_would_not_take_is_sent_again_from_the_page_by_keyboard() -> TestResult {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let desk = Receiver::start(Mood::Refuses(0)).await?;
    let usher = Usher::start_with_settings(SQL, &desk.settings("desk", "rules = [\"busy\"]"))?;
    browser.client.set_window_size(1440, 900).await?;
    browser.client.goto(&format!("http://{}/", usher.http)).await?;
    usher
        .publish(
            "usher/in/main/z0/gate/g",
            r#"{"id":"one","ts":"2026-03-02T09:00:00+08:00","in":12}"#,
        )
        .await?;
    let receivers = "/api/v1/receivers/desk";
    until("the dead letter", || usher.get(receivers), |desk| desk["dead"] == 1).await?;

    browser.seen("#health-button").await?.click().await?;
    let desk_row = r#"[data-receiver="desk"]"#;
    let shows = |text: &String| text.contains("delivering") && text.contains("1 not taken");
    until("the receiver", || browser.text(desk_row), shows).await?;
    assert!(browser.text(r#"[data-receiver="mqtt"]"#).await?.contains("delivering"));
    browser.show("deliveries").await?;
    // From here on without a mouse.
    let is_there = async || -> Result<bool, Box<dyn std::error::Error>> {
        Ok(browser.focused("data-action").await?.as_deref() == Some("letters"))
    };
    for _ in 0..10 {
        if is_there().await? {
            break;
        }
        browser.press(Key::Tab).await?;
    }
    assert!(is_there().await?, "Tab leads to what was not taken");
    browser.press(Key::Enter).await?;
    let letter = "#letters .letters li";
    let text = until("the letter", || browser.text(letter), |text| !text.is_empty()).await?;
    assert!(
        text.contains("Z0 is busy") && text.contains("Raised") && text.contains("422"),
        "{text}"
    );
    browser.show("letters").await?;

    desk.set(Mood::Takes);
    for _ in 0..10 {
        if browser.focused("data-action").await?.as_deref() == Some("resend") {
            break;
        }
        browser.press(Key::Tab).await?;
    }
    browser.press(Key::Enter).await?;
    until("the step", || async { Ok(desk.has()) }, |steps| *steps == 1).await?;
    let none = "#letters > .calm";
    until(
        "the end of it",
        || browser.text(none),
        |text| text == "Nothing is left here.",
    )
    .await?;
    browser.press(Key::Escape).await?;
    let back = || browser.focused("id");
    until("the way back", back, |id| id.as_deref() == Some("health-button")).await?;
    soon("the end", browser.client.clone().close()).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_that_comes_between_the_lists_and_the_stream_is_shown() -> TestResult {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let usher = Usher::start_with_queries(SQL)?;
    let held = HeldStream::before(&usher.http).await?;
    browser.client.goto(&format!("http://{}/", held.address)).await?;
    // Said once the lists are there, for they are empty.
    browser.seen("#waiting-title").await?;
    usher
        .publish("usher/in/main/reading-room/gate/door-1", r#"{"id":"one","in":12}"#)
        .await?;
    let is_there = |alerts: &Value| alerts["items"].as_array().is_some_and(|alerts| alerts.len() == 1);
    until("the alert", || usher.get("/api/v1/alerts?rule=busy"), is_there).await?;
    held.let_it.cancel();
    browser.seen(r#"[data-alert-rule="busy"]"#).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alerts_history_says_what_happened_when_who_and_why_in_both_languages() -> TestResult {
    let Some(browser) = Browser::start().await? else {
        return Ok(());
    };
    let usher = Usher::start_with_queries(SQL)?;
    browser.client.set_window_size(1440, 900).await?;
    browser.client.goto(&format!("http://{}/", usher.http)).await?;
    let gate = "usher/in/main/reading-room/gate/door-1";
    usher
        .publish(gate, r#"{"id":"one","ts":"2026-03-02T09:00:00+08:00","in":12}"#)
        .await?;
    let card = r#"[data-alert-rule="busy"]"#;
    let details = browser.seen(&format!("{card} [data-action=\"details\"]")).await?;
    details.send_keys(&String::from(char::from(Key::Enter))).await?;
    let steps = format!("{card} .history");
    // In the time of the place, which the page may learn a moment later.
    let first = "09:00:00\nRaised\nUsher · the rule's condition";
    until("the first step", || browser.text(&steps), |text| text == first).await?;

    let alerts = usher.get("/api/v1/alerts?rule=busy").await?;
    let id = alerts["items"][0]["id"].as_str().ok_or("an alert has an id")?;
    for (deed, body) in [
        ("acknowledge", json!({"by": "Li"})),
        ("assign", json!({"by": "Li", "to": "Wu"})),
        ("comment", json!({"by": "Wu", "text": "on my way <b>"})),
    ] {
        let (code, answer) = usher.post(&format!("/api/v1/alerts/{id}/{deed}"), body).await?;
        assert_eq!(code, 200, "{answer}");
    }
    // The latest comes first, and the open details follow.
    let all = |text: &String| text.contains("on my way");
    let text = until("the other steps", || browser.text(&steps), all).await?;
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(':') || line.contains("Comm"))
        .collect();
    assert_eq!(
        lines,
        [
            "Commented: on my way <b>",
            "Wu · staff",
            "Assigned to Wu",
            "Li · staff",
            "Acknowledged",
            "Li · staff",
            "Raised",
            "Usher · the rule's condition"
        ]
    );
    browser.show("history").await?;
    browser.client.set_window_size(1440, 900).await?;
    browser.seen(r#"[data-language="zh"]"#).await?.click().await?;
    browser
        .seen(&format!("{card} [data-action=\"details\"]"))
        .await?
        .click()
        .await?;
    let in_chinese = |text: &String| text.contains("指派给 Wu") && text.contains("Li · 馆员操作");
    until("the steps in Chinese", || browser.text(&steps), in_chinese).await?;
    browser.show("history-zh").await?;
    soon("the end", browser.client.clone().close()).await??;
    Ok(())
}
