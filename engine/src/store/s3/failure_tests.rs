#![allow(clippy::unwrap_used)]

use super::*;

const ASKED: Asked<'_> = Asked {
    permission: "s3:PutObject",
    resource: "arn:aws:s3:::b/p/*",
    bucket: "b",
    place: "https://store",
};

fn answer(status: u16, code: &str, message: &str) -> Answer {
    Answer { status, code: code.into(), message: message.into(), ..Answer::default() }
}

fn judged(answer: Answer) -> Refusal {
    judge(ASKED, &Failure::Answer(Box::new(answer)), SystemTime::now())
}

/// Outlook, and a word that the error or its advice must have.
#[track_caller]
fn check(answer: Answer, outlook: Outlook, words: &[&str]) {
    let code = answer.code.clone();
    let refusal = judged(answer);
    assert_eq!(refusal.outlook, outlook, "{code}");
    assert_eq!(refusal.error.kind(), ErrorKind::Store);
    let said = format!("{} | {}", refusal.error, refusal.error.advice().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "nothing about {word} in: {said}");
    }
}

#[test]
fn causes_are_told_apart_and_have_a_remedy() {
    use Outlook::{Doubtful, Permanent, Transient};
    check(
        answer(403, "SignatureDoesNotMatch", ""),
        Permanent,
        &["secret key", "SignatureDoesNotMatch"],
    );
    check(answer(403, "InvalidAccessKeyId", ""), Permanent, &["access key", "https://store"]);
    check(
        answer(403, "AccessDenied", ""),
        Permanent,
        &["allow s3:PutObject on arn:aws:s3:::b/p/*"],
    );
    check(answer(403, "", ""), Permanent, &["allow s3:PutObject"]);
    let kms = "User: x is not authorized to perform: kms:GenerateDataKey on resource: y";
    check(answer(403, "AccessDenied", kms), Permanent, &["allow kms:GenerateDataKey on"]);
    check(answer(404, "NoSuchBucket", ""), Permanent, &["bucket b", "https://store"]);
    check(answer(400, "ExpiredToken", ""), Doubtful, &["expired", "role"]);
    check(answer(503, "SlowDown", ""), Transient, &["slow down", "concurrency"]);
    check(answer(429, "TooManyRequests", ""), Transient, &[]);
    check(answer(429, "", ""), Transient, &[]);
    check(answer(409, "ConditionalRequestConflict", ""), Transient, &[]);
    check(answer(500, "InternalError", "oh"), Transient, &["oh"]);
    check(answer(502, "", ""), Transient, &["502"]);
    check(answer(599, "SomethingNew", ""), Transient, &["SomethingNew"]);
    check(answer(400, "SomethingNew", ""), Doubtful, &["SomethingNew"]);
    check(answer(400, "BadDigest", ""), Doubtful, &["changed"]);
    check(answer(507, "", ""), Permanent, &["full"]);
    check(answer(501, "NotImplemented", ""), Permanent, &[]);
}

#[test]
fn a_wrong_clock_is_not_bad_credentials() {
    let now = SystemTime::now();
    for code in ["RequestTimeTooSkewed", "SignatureDoesNotMatch", "AccessDenied", ""] {
        for (date, words) in [
            (now - Duration::from_secs(3 * 3600), "3 hours ahead of"),
            (now + Duration::from_secs(3 * 3600 + 5), "3 hours behind"),
        ] {
            let skewed = Answer { date: Some(date), ..answer(403, code, "") };
            check(skewed, Outlook::Doubtful, &[words, "NTP"]);
        }
        let right = Answer { date: Some(now - Duration::from_secs(60)), ..answer(403, code, "") };
        assert!(!judged(right).error.to_string().contains("ahead"));
    }
}

#[test]
fn a_wrong_region_says_which_is_right() {
    let message = "the region 'us-east-1' is wrong; expecting 'eu-west-1'";
    assert_eq!(expected_region(message).as_deref(), Some("eu-west-1"));
    assert_eq!(expected_region("expecting 'x y'"), None);
    let elsewhere =
        Answer { region: Some("eu-west-1".into()), ..answer(301, "PermanentRedirect", "") };
    check(elsewhere, Outlook::Permanent, &["use the region eu-west-1"]);
    // As an answer to HEAD, which has no content.
    let elsewhere = Answer { region: Some("eu-west-1".into()), ..answer(400, "", "") };
    check(elsewhere, Outlook::Permanent, &["use the region eu-west-1"]);
}

#[test]
fn what_happens_on_the_way_passes_unless_it_is_tls() {
    let way = |words: &str| judge(ASKED, &Failure::Way(words.into()), SystemTime::now());
    assert_eq!(way("connection reset by peer").outlook, Outlook::Transient);
    assert_eq!(way("tcp connect error: Connection refused").outlook, Outlook::Transient);
    let untrusted = way("invalid peer certificate: UnknownIssuer");
    assert_eq!(untrusted.outlook, Outlook::Permanent);
    assert!(untrusted.error.advice().unwrap().contains("certificate"));
}

#[test]
fn the_store_may_ask_for_a_pause() {
    let busy = Answer { retry_after: Some(Duration::from_secs(7)), ..answer(503, "SlowDown", "") };
    assert_eq!(judged(busy).wait, Some(Duration::from_secs(7)));
}

#[test]
fn text_of_others_stays_on_its_line() {
    assert_eq!(clean("a\nb\u{1b}[0m \n"), "a b [0m");
    assert_eq!(clean(&"x".repeat(10_000)).len(), QUOTE_MAX);
}
