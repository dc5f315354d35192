//! What people read on a terminal: the demo's welcome and alerts, and the answers of a running engine.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, bail};
use chrono::DateTime;
use chrono_tz::Tz;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use usher_engine::answer::Rows;
use usher_engine::bus::BusEvent;
use usher_engine::demo::DemoOptions;
use usher_engine::engine::Engine;
use usher_engine::messages::{MessageState, MessageView};
use usher_engine::replay::Speed;

/// Says where to look, once the demo runs.
pub(crate) fn welcome(engine: &Engine, options: &DemoOptions) {
    let pace = match options.speed {
        Speed::Times(times) => format!("{times} times as fast as life"),
        Speed::Max => "as fast as it can".to_owned(),
    };
    let what = match &options.recording {
        Some(file) => file.display().to_string(),
        None => "A library's day".to_owned(),
    };
    eprintln!("\n  {what} comes in by MQTT, {pace}.\n");
    eprintln!("  staff page   http://{}/", engine.http);
    if let Some(address) = engine.mqtt_address {
        eprintln!(
            "  alerts       mosquitto_sub -h {} -p {} -t 'usher/out/#' -v",
            address.ip(),
            address.port()
        );
    }
    eprintln!("  stop         Ctrl-C\n");
}

/// Prints each alert that is raised or over, and each message that goes out or is answered.
pub(crate) async fn tell_alerts(
    mut events: broadcast::Receiver<BusEvent>,
    mut messages: broadcast::Receiver<Arc<MessageView>>,
    zone: Tz,
    stop: CancellationToken,
) {
    let mut last = std::collections::HashMap::<String, String>::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            Ok(message) = messages.recv() => {
                tell_message(&message, zone);
                continue;
            }
            () = stop.cancelled() => return,
        };
        let event = match event {
            Ok(event) if event.name == "alert" => event,
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let Ok(alert) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        let text = |name: &str| alert[name].as_str().unwrap_or("").to_owned();
        let state = text("state");
        let is_new = last.insert(text("id"), state.clone()).as_ref() != Some(&state);
        if state == "cleared" {
            last.remove(&text("id"));
        }
        let was_raised = alert["raised_at"].is_string();
        if is_new && was_raised && matches!(state.as_str(), "active" | "cleared") {
            let at = if state == "cleared" {
                text("cleared_at")
            } else {
                text("event_time")
            };
            let at = DateTime::parse_from_rfc3339(&at)
                .map_or(at, |at| at.with_timezone(&zone).format("%a %H:%M").to_string());
            let sign = if state == "cleared" { "over " } else { "ALERT" };
            eprintln!("  {at}  {sign}  {}", text("text"));
        }
    }
}

/// Prints a message that goes out to a reader, and what the reader says to it.
fn tell_message(message: &MessageView, zone: Tz) {
    let at = message.answered_at.as_ref().unwrap_or(&message.at);
    let at = DateTime::parse_from_rfc3339(at).map_or_else(
        |_| at.clone(),
        |at| at.with_timezone(&zone).format("%a %H:%M").to_string(),
    );
    match message.state {
        MessageState::Sent => eprintln!("  {at}  OFFER  {}", message.text.en),
        MessageState::Accepted | MessageState::Declined => {
            eprintln!("  {at}  REPLY  {} to {}", message.state.as_str(), message.kind);
        }
        MessageState::Opened | MessageState::Expired | MessageState::Withheld => {}
    }
}

async fn get(http: &str, path: &str) -> anyhow::Result<Value> {
    answer(reqwest::Client::new().get(format!("http://{http}{path}")), http).await
}

async fn answer(request: reqwest::RequestBuilder, http: &str) -> anyhow::Result<Value> {
    let response = request.send().await.with_context(|| {
        format!("no engine answers on {http}; start one with `usher run`, or name another with --http")
    })?;
    let is_right = response.status().is_success();
    let body: Value = response.json().await.context("the engine's answer can't be read")?;
    if !is_right {
        let detail = body["detail"].as_str().unwrap_or("the engine says no");
        match body["mistakes"][0]["right"].as_str() {
            Some(right) => bail!("{detail}, {right}"),
            None => bail!("{detail}"),
        }
    }
    Ok(body)
}

/// Asks a running engine in SQL.
pub(crate) async fn ask(http: &str, sql: &str) -> anyhow::Result<Rows> {
    let request = reqwest::Client::new()
        .post(format!("http://{http}/api/v1/query"))
        .json(&serde_json::json!({ "sql": sql }));
    Ok(serde_json::from_value(answer(request, http).await?)?)
}

/// The plan of a running query.
pub(crate) async fn explain(http: &str, query: &str) -> anyhow::Result<String> {
    let found = get(http, &format!("/api/v1/queries/{query}")).await?;
    let text = |name: &str| found[name].as_str().unwrap_or("").to_owned();
    let list = |name: &str| -> Vec<String> {
        let items = found[name].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut out = String::new();
    writeln!(out, "{} {}", text("kind"), text("name"))?;
    if !text("comment").is_empty() {
        writeln!(out, "  {}", text("comment").replace('\n', "\n  "))?;
    }
    writeln!(out, "\nreads      {}", list("reads").join(", "))?;
    if !list("read_by").is_empty() {
        writeln!(out, "read by    {}", list("read_by").join(", "))?;
    }
    writeln!(out, "says       {}", list("columns").join(", "))?;
    writeln!(out, "is for     {}, without persons who refuse it", text("purpose"))?;
    writeln!(
        out,
        "speaks     {}, rows may be {} s late",
        text("emit"),
        found["lateness_s"]
    )?;
    let lag = found["lag_s"]
        .as_f64()
        .map(|lag| format!(", {lag} s behind the newest event"));
    writeln!(
        out,
        "watermark  {}{}",
        found["watermark"].as_str().unwrap_or("none yet"),
        lag.unwrap_or_default()
    )?;
    writeln!(
        out,
        "state      {} keys, {} open windows, {} of {} bytes",
        found["keys"], found["windows"], found["bytes"], found["memory"]
    )?;
    let counters = &found["counters"];
    writeln!(
        out,
        "so far     {} rows in, {} rows out, {} amended, {} too late",
        counters["rows_in"], counters["rows_out"], counters["amended_rows"], counters["late_rows"]
    )?;
    if let Some(cost) = found["cost_us"].as_f64() {
        writeln!(
            out,
            "cost       {cost} µs an evaluation, half within {} µs, 99 % within {} µs",
            counters["p50_us"], counters["p99_us"]
        )?;
    }
    for warning in found["warnings"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "WARNING    {}, {}",
            warning["wrong"].as_str().unwrap_or(""),
            warning["right"].as_str().unwrap_or("")
        )?;
    }
    if let Some(reason) = found["broken"].as_str() {
        writeln!(out, "STOPPED    {reason}")?;
    }
    writeln!(out, "\nruns, the last step first")?;
    for operator in list("operators") {
        writeln!(out, "  {operator}")?;
    }
    writeln!(out, "\nplan\n  {}", text("plan").replace('\n', "\n  "))?;
    writeln!(out, "\n{}", text("sql"))?;
    Ok(out)
}

/// A running engine on one screen.
pub(crate) async fn status(http: &str) -> anyhow::Result<String> {
    let status = get(http, "/api/v1/status").await?;
    let text = |name: &str| status[name].as_str().unwrap_or("–").to_owned();
    let counts = &status["counts"];
    let mut out = String::new();
    writeln!(
        out,
        "usher {}  {}  up {}",
        text("version"),
        text("status"),
        humantime::format_duration(std::time::Duration::from_secs(status["uptime_s"].as_u64().unwrap_or(0)))
    )?;
    writeln!(out, "\ntime        {}  (our clock {})", text("now"), text("wall"))?;
    writeln!(out, "watermark   {}", text("watermark"))?;
    writeln!(out, "held by     {}", status["held_by"].as_str().unwrap_or("nobody"))?;
    for source in status["sources"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "source      {}: {}, {} messages, {} shed (intake full), {} shed (not receiving)",
            source["name"].as_str().unwrap_or(""),
            source["detail"].as_str().unwrap_or(""),
            source["received"],
            source["shed"],
            source["shed_not_receiving"]
        )?;
    }
    writeln!(
        out,
        "\nso far      {} messages, {} events, {} repeated, {} unreadable, {} wrong clocks",
        counts["messages"], counts["events"], counts["duplicates"], counts["refused"], counts["wrong_clocks"]
    )?;
    if counts["elsewhere"].as_u64().is_some_and(|elsewhere| elsewhere > 0) {
        writeln!(
            out,
            "elsewhere   {} messages of other workers' sites",
            counts["elsewhere"]
        )?;
    }
    writeln!(
        out,
        "log         {} to {}, {} not on disk yet",
        status["log_oldest"], status["log_next"], status["log_not_durable"]
    )?;
    if let Some(trouble) = status["log_trouble"].as_str() {
        writeln!(out, "  STOPPED   {trouble}")?;
    }
    if let Some(shedding) = status["shedding"].as_str() {
        writeln!(out, "  SHEDDING  {shedding}")?;
    }
    if let Some(waiting) = status["intake_trouble"].as_str() {
        writeln!(out, "  BEHIND    {waiting}")?;
    }
    for receiver in status["receivers"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "receiver    {}: {}, {} waiting, {} sent, {} failed, {} dead",
            receiver["name"].as_str().unwrap_or(""),
            receiver["words"].as_str().unwrap_or(""),
            receiver["waiting"],
            receiver["sent"],
            receiver["failed"],
            receiver["dead"]
        )?;
    }
    let recovery = &status["recovery"];
    writeln!(out, "state       {}", recovery["text"].as_str().unwrap_or(""))?;
    for reason in recovery["unusable"].as_array().into_iter().flatten() {
        writeln!(out, "  NOT USED  {}", reason.as_str().unwrap_or(""))?;
    }
    for query in recovery["queries"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "  {:<10}{}: {}",
            query["decision"].as_str().unwrap_or("").to_uppercase(),
            query["query"].as_str().unwrap_or(""),
            query["reason"].as_str().unwrap_or("")
        )?;
    }
    let turn = &status["checkpoint_turn"];
    writeln!(
        out,
        "checkpoints {} so far, events waited {} times for them: {} µs at the median, {} µs at 99 %, {} µs at most",
        status["checkpoint_pause"]["count"], turn["count"], turn["p50_us"], turn["p99_us"], turn["max_us"]
    )?;
    writeln!(
        out,
        "knows       {} devices ({} silent, {} new ones that site.toml does not name), {} people, {} alerts standing",
        status["devices"],
        status["devices_silent"],
        status["devices_unknown"],
        status["people"],
        status["alerts_standing"]
    )?;
    writeln!(
        out,
        "\n{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "since receipt", "count", "median", "90 %", "99 %", "99.9 %"
    )?;
    for stage in status["latency"].as_array().into_iter().flatten() {
        let micros = |name: &str| format!("{} µs", stage[name]);
        writeln!(
            out,
            "{:<13}{:>10}{:>10}{:>10}{:>10}{:>10}",
            stage["stage"].as_str().unwrap_or(""),
            stage["count"].to_string(),
            micros("p50_us"),
            micros("p90_us"),
            micros("p99_us"),
            micros("p999_us")
        )?;
    }
    writeln!(out, "\nqueries     {}", status["queries"])?;
    for broken in status["broken_queries"].as_array().into_iter().flatten() {
        writeln!(
            out,
            "  STOPPED   {}: {}",
            broken["query"].as_str().unwrap_or(""),
            broken["reason"].as_str().unwrap_or("")
        )?;
    }
    let failed = |part: &&Value| part["failures"].as_u64().unwrap_or(0) > 0;
    for part in status["parts"].as_array().into_iter().flatten().filter(failed) {
        writeln!(
            out,
            "{:<12}{}, failed {} times, {} since {}: {}",
            "part",
            part["part"].as_str().unwrap_or(""),
            part["failures"],
            part["state"].as_str().unwrap_or(""),
            part["since"].as_str().unwrap_or(""),
            part["detail"].as_str().unwrap_or("")
        )?;
    }
    Ok(out)
}
