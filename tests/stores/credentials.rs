//! Where credentials come from: each way that the environment can name, in a process of its own.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::store::{Location, RetryOptions, StoreOptions, open};
use engine::{ErrorKind, report::Silent};
use harness::canned::CannedServer;
use harness::faulty_proxy::{Fault, FaultyProxy, Refusal, Rule};
use harness::process::Finished;
use harness::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use harness::{Scratch, process};

use super::common::ok;
use super::{Calls, quick};

/// The test that the processes run.
const CHILD: &str = "credentials::child";

/// Puts an object with nothing but what the environment says.
#[test]
#[ignore = "other tests run it, with an environment"]
fn child() {
    let location: Location = format!("s3://{BUCKET}/p").parse().expect("a location");
    let retry = RetryOptions { patience: Duration::from_secs(3), ..quick().retry };
    let options =
        StoreOptions { retry: RetryOptions { stall: Duration::from_secs(5), ..retry }, ..quick() };
    let store = open(&location, &options, Arc::new(Silent)).expect("opens");
    match store.put_any("x", &b"1"[..]) {
        Ok(_) => println!("put it"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Store);
            println!("refused: {error} | {}", error.advice().unwrap_or_default());
        }
    }
}

/// Runs the child with these variables; no others that say something about AWS.
fn run(server: &S3Server, scratch: &Scratch, variables: &[(&str, &str)]) -> Finished {
    let program = std::env::current_exe().expect("this test has a file");
    let mut command = Command::new(program);
    command.args(["--exact", CHILD, "--ignored", "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    // The files of whoever runs the tests are none of their business.
    command
        .env("HOME", scratch.path())
        .env("NO_PROXY", "127.0.0.1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("AWS_ENDPOINT_URL_S3", server.endpoint())
        .env("AWS_REGION", "us-east-1")
        .envs(variables.iter().copied());
    ok(process::run(command).and_then(Finished::success))
}

#[track_caller]
fn puts(server: &S3Server, scratch: &Scratch, variables: &[(&str, &str)]) {
    let said = run(server, scratch, variables).stdout_text();
    assert!(said.contains("put it"), "{said}");
    let object = server.bucket_dir().join("p/x");
    std::fs::remove_file(object).expect("it was put");
}

/// Temporary credentials as the services of containers and instances give them.
fn credentials() -> String {
    format!(
        r#"{{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": "{ACCESS_KEY}", "SecretAccessKey": "{SECRET_KEY}", "Token": "session",
            "Expiration": "2096-01-01T00:00:00Z"}}"#
    )
}

#[test]
fn variables_and_profiles() {
    let (server, scratch) = (ok(S3Server::start()), ok(Scratch::new()));
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    puts(&server, &scratch, &keys);

    let dir = scratch.join(".aws");
    std::fs::create_dir(&dir).expect("is new");
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("writes");
    write(
        "credentials",
        format!(
            "[backup]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        ),
    );
    write("config", "[profile backup]\nregion = eu-west-1\n".to_owned());
    puts(&server, &scratch, &[("AWS_PROFILE", "backup")]);

    // No program is started, whatever a profile says.
    let proof = scratch.join("was-started");
    write("credentials", String::new());
    write("config", format!("[profile backup]\ncredential_process = touch {}\n", proof.display()));
    let said = run(&server, &scratch, &[("AWS_PROFILE", "backup")]).stdout_text();
    assert!(said.contains("refused:"), "{said}");
    assert!(!proof.exists(), "{said}");
}

#[test]
fn nowhere() {
    let (server, scratch) = (ok(S3Server::start()), ok(Scratch::new()));
    let said = run(&server, &scratch, &[]).stdout_text();
    assert!(said.contains("refused:") && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    let expired = [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", "another-secret"),
        ("AWS_SESSION_TOKEN", "hush-hush"),
    ];
    let said = run(&server, &scratch, &expired).stdout_text();
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");
    assert!(!said.contains("hush") && !said.contains("another-secret"), "{said}");
}

#[test]
fn pods_and_containers() {
    let (server, scratch) = (ok(S3Server::start()), ok(Scratch::new()));
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    let token = scratch.join("token");
    std::fs::write(&token, "pod-token").expect("writes");
    let agent = ok(CannedServer::start(move |asked| {
        match asked.headers.get("authorization").map(String::as_str) {
            Some("pod-token") if asked.target == "/v1/credentials" => {
                counted.fetch_add(1, Ordering::SeqCst);
                (200, credentials())
            }
            _ => (403, String::new()),
        }
    }));
    let url = format!("{}/v1/credentials", agent.url());
    let token = token.display().to_string();
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &*token),
    ];
    puts(&server, &scratch, &variables);
    assert_eq!(given.load(Ordering::SeqCst), 1);

    // Credentials that the store finds expired are asked for again.
    let proxy = ok(FaultyProxy::start(server.address()));
    let expired = Fault::Refuse(Refusal::new(400, "ExpiredToken"));
    proxy.add(Rule::all(expired).times(1));
    let endpoint = proxy.endpoint();
    let variables = [variables[0], variables[1], ("AWS_ENDPOINT_URL_S3", &*endpoint)];
    puts(&server, &scratch, &variables);
    assert_eq!(given.load(Ordering::SeqCst), 3);
}

#[test]
fn web_identity() {
    let (server, scratch) = (ok(S3Server::start()), ok(Scratch::new()));
    let token = scratch.join("token");
    std::fs::write(&token, "web-token").expect("writes");
    let sts = ok(CannedServer::start(|asked| {
        let wanted = ["Action=AssumeRoleWithWebIdentity", "WebIdentityToken=web-token", "RoleArn="];
        if !wanted.iter().all(|word| asked.body.contains(word)) {
            return (403, String::new());
        }
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>session</SessionToken>\
             <Expiration>2096-01-01T00:00:00Z</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        (200, answer)
    }));
    let token = token.display().to_string();
    puts(
        &server,
        &scratch,
        &[
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
            ("AWS_ENDPOINT_URL_STS", &sts.url()),
        ],
    );
}

#[test]
fn the_role_of_an_instance() {
    let (server, scratch) = (ok(S3Server::start()), ok(Scratch::new()));
    let service = ok(CannedServer::start(|asked| {
        let has_token =
            asked.headers.get("x-aws-ec2-metadata-token").map(String::as_str) == Some("imds");
        let below = asked.target.strip_prefix("/latest/meta-data/iam/security-credentials");
        match (asked.method.as_str(), below.map(|path| path.trim_matches('/'))) {
            ("PUT", None) if asked.target == "/latest/api/token" => (200, "imds".to_owned()),
            ("GET", Some("")) if has_token => (200, "backup-role".to_owned()),
            ("GET", Some("backup-role")) if has_token => (200, credentials()),
            _ => (404, String::new()),
        }
    }));
    puts(
        &server,
        &scratch,
        &[
            ("AWS_EC2_METADATA_DISABLED", "false"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service.url()),
        ],
    );
}
