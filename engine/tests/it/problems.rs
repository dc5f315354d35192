//! What the API can't read it refuses with problem details, whatever the route: what is wrong, where, what would be right.

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::TestResult;
use crate::usher::Usher;

/// The detail of an answer that has to be a problem with this status.
async fn problem(what: &str, answer: Response, status: u16) -> Result<String, Box<dyn std::error::Error>> {
    let kind = answer.headers().get("content-type").cloned();
    let (found, text) = (answer.status().as_u16(), answer.text().await?);
    assert_eq!(found, status, "{what}: {text}");
    let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
    assert!(is_problem, "{what}: {text}");
    let problem: Value = serde_json::from_str(&text)?;
    assert_eq!(problem["status"], status, "{what}");
    Ok(problem["detail"].as_str().unwrap_or_default().to_owned())
}

/// What the API says of itself: method, path with something in place of each name, and the operation.
async fn operations(usher: &Usher) -> Result<Vec<(Method, String, Value)>, Box<dyn std::error::Error>> {
    let api = usher.get("/api/openapi.json").await?;
    let mut operations = Vec::new();
    for (path, methods) in api["paths"].as_object().ok_or("no paths")? {
        for (method, operation) in methods.as_object().ok_or("no methods")? {
            let path = path
                .split('/')
                .map(|part| if part.starts_with('{') { "x" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            operations.push((method.to_uppercase().parse()?, path, operation.clone()));
        }
    }
    Ok(operations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_body_and_query_string_that_cannot_be_read_is_a_problem_in_words() -> TestResult {
    let usher = Usher::start()?;
    let client = Client::new();
    let (mut bodies, mut strings) = (0, 0);
    for (method, path, operation) in operations(&usher).await? {
        let url = format!("http://{}{path}", usher.http);
        let ask = || client.request(method.clone(), &url);
        let said = |query: String| client.request(method.clone(), format!("{url}?{query}"));
        let what = format!("{method} {path}");
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            strings += 1;
            let name = parameter["name"].as_str().ok_or("no name")?;
            let body = json!({"sql": "SELECT 1 AS one"});
            let twice = said(format!("{name}=1&{name}=2")).json(&body).send().await?;
            let detail = problem(&what, twice, 400).await?;
            assert_eq!(
                detail,
                format!("'{name}' is there twice in the query string; once would be right"),
                "{what}"
            );
            if name == "limit" {
                let detail = problem(&what, said(format!("{name}=abc")).send().await?, 400).await?;
                let right = "'limit' is 'abc' in the query string; a whole number such as 100 would be right";
                assert_eq!(detail, right, "{what}");
            }
        }
        if operation["requestBody"].is_null() {
            continue;
        }
        bodies += 1;
        let typed = |kind: &str, body: &str| ask().header("content-type", kind).body(body.to_owned()).send();
        for (body, wrong) in [
            (
                "{\"by\":\n",
                "the body is no JSON: EOF while parsing a value (line 2, column 0); JSON such as {",
            ),
            ("[]", "the body is an array; a JSON object such as {"),
            (r#"{"by":5,"sql":5,"text":5,"to":5,"id":5}"#, "5 (line 1, column "),
        ] {
            let detail = problem(&what, typed("application/json", body).await?, 400).await?;
            assert!(
                detail.contains(wrong) && detail.contains("would be right"),
                "{what}: {detail}"
            );
        }
        let detail = problem(&what, typed("text/plain", "{}").await?, 415).await?;
        assert!(
            detail.starts_with("the content type of the body is 'text/plain'; application/json with a body such as {"),
            "{what}: {detail}"
        );
        let detail = problem(&what, ask().body("{}").send().await?, 415).await?;
        assert!(
            detail.starts_with("the content type of the body is not told"),
            "{what}: {detail}"
        );
        let large = typed("application/json", &" ".repeat(600 << 10)).await?;
        let detail = problem(&what, large, 413).await?;
        assert_eq!(
            detail, "the body is too large; at most 524288 bytes would be right",
            "{what}"
        );
    }
    // As many as there are; none is left out unseen.
    assert!(bodies >= 12 && strings >= 40, "{bodies} bodies, {strings} parameters");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_or_a_method_that_is_not_there_is_a_problem_too() -> TestResult {
    let usher = Usher::start()?;
    let client = Client::new();
    let url = |path: &str| format!("http://{}{path}", usher.http);
    for (method, path, status) in [
        (Method::GET, "/api/v1/nothing", 404),
        (Method::POST, "/api/v1/zones", 405),
        (Method::PATCH, "/api/v1/people/p_x", 405),
        (Method::GET, "/api/v1/zones/%FF", 400),
        (Method::GET, "/assets/%FF", 400),
        (Method::GET, "/api/v1/people/p_zzz", 404),
        (Method::GET, "/api/v1/people/p_zzz/points", 404),
        (Method::GET, "/api/v1/people/p_zzz/messages", 404),
        (Method::GET, "/api/v1/people/p_zzz/consent", 404),
    ] {
        let answer = client.request(method.clone(), url(path)).send().await?;
        let detail = problem(path, answer, status).await?;
        assert!(!detail.is_empty(), "{method} {path}");
    }
    // What a body may leave out it may leave out whole.
    let acknowledged = client.post(url("/api/v1/alerts/x/acknowledge")).send().await?;
    let detail = problem("no body", acknowledged, 404).await?;
    assert!(detail.starts_with("no alert 'x' stands"), "{detail}");
    Ok(())
}
