//! The staff page in a real browser: what people see moves when somebody passes a gate.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

use crate::usher::Usher;
use crate::{TestResult, peer, soon, until};

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

    async fn text(&self, css: &str) -> Result<String, Box<dyn std::error::Error>> {
        match self.client.find(Locator::Css(css)).await {
            Ok(element) => Ok(element.text().await?),
            Err(_) => Ok(String::new()),
        }
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
    soon("the end", browser.client.clone().close()).await??;
    Ok(())
}
