//! Every body over HTTP has a pinned sample, reads from it, is written back to the same bytes, and is described.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use carillon_protocol::Fields;
use carillon_protocol::http::{
    ApplicationMessage, DemoState, JobAccepted, JobList, JobRequest, JobState, MessageProgress, MessageTrace,
    Page, PresenceList, Problem, Published, RevocationRequest, SessionOpened, SignInRequest, SignedIn,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The sample of a type, which has the type's name.
fn sample(name: &str) -> String {
    let text = fs::read_to_string(root().join("golden/http").join(format!("{name}.json"))).expect(name);
    text.trim_end().to_owned()
}

fn name_of<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap()
}

/// Reads the sample of a type and writes it again. Returns the type's name.
fn check<T: Serialize + DeserializeOwned>() -> &'static str {
    let name = name_of::<T>();
    let sample = sample(name);
    let body: T = serde_json::from_str(&sample).expect(name);
    assert_eq!(serde_json::to_string(&body).unwrap(), sample);
    name
}

#[test]
fn bodies_are_written_as_they_were_read() {
    let checked = BTreeSet::from([
        check::<ApplicationMessage>(),
        check::<DemoState>(),
        check::<JobAccepted>(),
        check::<JobList>(),
        check::<JobRequest>(),
        check::<JobState>(),
        check::<MessageProgress>(),
        check::<MessageTrace>(),
        check::<Page>(),
        check::<PresenceList>(),
        check::<Problem>(),
        check::<Published>(),
        check::<RevocationRequest>(),
        check::<SessionOpened>(),
        check::<SignInRequest>(),
        check::<SignedIn>(),
    ]);
    let samples: BTreeSet<_> = fs::read_dir(root().join("golden/http"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(checked, samples.iter().map(String::as_str).collect());

    let described = fs::read_to_string(root().join("../docs/openapi.json")).unwrap();
    let described: serde_json::Value = serde_json::from_str(&described).unwrap();
    for name in checked {
        // It goes the other way: docs/protocol/webhooks.md describes it.
        let is_ours = name != name_of::<ApplicationMessage>();
        assert_eq!(described["components"]["schemas"].get(name).is_some(), is_ours, "{name}");
    }
}

/// The viewer reads field by field.
fn check_read<T: Serialize>(read: impl FnOnce(&Fields) -> Option<T>) {
    let name = name_of::<T>();
    let sample = sample(name);
    let body = read(&Fields::read(&sample).unwrap()).expect(name);
    assert_eq!(serde_json::to_string(&body).unwrap(), sample);
}

#[test]
fn what_the_viewer_reads_is_all_of_the_body() {
    check_read(JobState::read);
    check_read(|fields| Some(JobList::read(fields)));
    check_read(|fields| Some(Page::read(fields)));
    check_read(SignedIn::read);
}

#[test]
fn what_cannot_be_read_is_left_out() {
    let page = r#"{"items":[{"cursor":"a.1-0","claimed_by":"b"},7],"next":"a.1-0"}"#;
    assert!(Page::read(&Fields::read(page).unwrap()).items.is_empty());
    let jobs = r#"{"jobs":[{"id":"a","status":"asleep"},{"id":"b","status":"done"},{"status":"done"}]}"#;
    let ids: Vec<_> =
        JobList::read(&Fields::read(jobs).unwrap()).jobs.into_iter().map(|job| job.id).collect();
    assert_eq!(ids, ["b"]);
    assert!(SignedIn::read(&Fields::read(r#"{"token":"t","user":"anna"}"#).unwrap()).is_none());
}
