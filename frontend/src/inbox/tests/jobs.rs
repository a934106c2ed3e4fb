use carillon_protocol::http::JobState;
use carillon_protocol::{JobStatus, Notification, Resume, Severity};
use serde_json::value::RawValue;

use super::super::{Event, Hold, JOB_LIFE_MS, Job, LEAVE_MS, LIFE_MS, Row, VISIBLE_MAX_TOASTS, queued};
use super::Page;

fn state(id: &str, status: JobStatus, progress: u8) -> JobState {
    JobState { status, progress, ..queued(id.to_owned(), "Import") }
}

/// A worker's report.
fn report(page: &mut Page, id: &str, status: JobStatus, progress: u8) {
    page.came_with(&format!("job:{id}:{progress}"), |one| set_report(one, id, status, progress));
}

fn set_report(one: &mut Notification, id: &str, status: JobStatus, progress: u8) {
    let job = format!(
        r#"{{"job":{{"id":"{id}","status":"{}","progress":{progress},"result":null}}}}"#,
        status.as_str()
    );
    one.title = "Import".to_owned();
    one.body = format!("{progress} %");
    one.collapse_key = Some(Job::collapse_key(id));
    one.data = Some(RawValue::from_string(job).unwrap());
    if status == JobStatus::Done {
        one.severity = Severity::Success;
    }
}

/// Status and progress of the jobs in the list, newest first.
fn jobs(page: &Page) -> Vec<(JobStatus, u8)> {
    let items = page.inbox.rows().shown().filter_map(Row::item);
    items.filter_map(|item| item.job.as_ref()).map(|job| (job.status, job.progress)).collect()
}

#[test]
fn a_job_is_one_toast_and_one_row_that_change_in_place() {
    let mut page = Page::default();
    page.apply(Event::Jobs(vec![state("j", JobStatus::Queued, 0)])).came("x");
    assert_eq!(page.toasts(), ["job:j", "x"]);
    for progress in [10, 50, 90] {
        page.after(LIFE_MS);
        report(&mut page, "j", JobStatus::Running, progress);
        assert_eq!(page.toasts()[0], format!("job:j:{progress}"));
    }
    assert_eq!(
        (page.rows(), jobs(&page)),
        (vec!["x".into(), "job:j:90".into()], vec![(JobStatus::Running, 90)])
    );
    page.after(JOB_LIFE_MS - 1);
    report(&mut page, "j", JobStatus::Done, 100);
    page.after(LIFE_MS - 1);
    assert_eq!(page.leaving(), 0, "its life begins with the last report");
    page.after(1).after(LEAVE_MS);
    assert_eq!((page.toasts(), jobs(&page)), (vec![], vec![(JobStatus::Done, 100)]));
}

#[test]
fn a_job_never_goes_back() {
    let mut page = Page::default();
    page.apply(Event::Jobs(vec![state("j", JobStatus::Running, 60)]));
    report(&mut page, "j", JobStatus::Running, 20);
    assert_eq!(jobs(&page), [(JobStatus::Running, 60)]);
    report(&mut page, "j", JobStatus::Done, 100);
    page.apply(Event::Jobs(vec![state("j", JobStatus::Running, 90), state("old", JobStatus::Done, 100)]));
    assert_eq!(jobs(&page), [(JobStatus::Done, 100)], "nor does one come that has ended elsewhere");
}

#[test]
fn a_closed_job_comes_back_when_it_is_finished() {
    let mut page = Page::default();
    report(&mut page, "j", JobStatus::Running, 10);
    page.apply(Event::Escaped).after(LEAVE_MS);
    report(&mut page, "j", JobStatus::Running, 20);
    assert_eq!((page.toasts(), jobs(&page)), (vec![], vec![(JobStatus::Running, 20)]));
    report(&mut page, "j", JobStatus::Done, 100);
    assert_eq!(page.toasts(), ["job:j:100"]);
}

#[test]
fn an_end_that_is_reported_twice_is_shown_once() {
    // The response to a query and the report arrive in either order: on a busy machine, later than a toast lives.
    for asked_first in [true, false] {
        let mut page = Page::default();
        let answer_query = |page: &mut Page| {
            page.apply(Event::Jobs(vec![state("j", JobStatus::Done, 100)]));
        };
        report(&mut page, "j", JobStatus::Running, 90);
        if asked_first {
            answer_query(&mut page);
        } else {
            report(&mut page, "j", JobStatus::Done, 100);
        }
        assert_eq!(page.toasts().len(), 1);
        page.after(LIFE_MS).after(LEAVE_MS);
        assert_eq!(page.toasts(), [""; 0]);
        if asked_first {
            report(&mut page, "j", JobStatus::Done, 100);
        } else {
            answer_query(&mut page);
        }
        assert_eq!((page.toasts(), jobs(&page)), (vec![], vec![(JobStatus::Done, 100)]), "{asked_first}");
    }
}

#[test]
fn a_running_job_has_its_toast_again_after_a_reload() {
    let mut page = Page::default();
    let reports =
        ["runs", "ends"].map(|id| page.delivery(id, |one| set_report(one, id, JobStatus::Running, 40)));
    page.fill(reports.into(), None);
    assert_eq!((page.toasts(), page.rows().len()), (vec![], 2));
    page.apply(Event::Jobs(vec![state("ends", JobStatus::Done, 100), state("runs", JobStatus::Running, 50)]));
    assert_eq!(page.toasts(), ["job:ends", "job:runs"], "also one that has ended meanwhile");
    assert_eq!(jobs(&page), [(JobStatus::Done, 100), (JobStatus::Running, 50)]);
}

#[test]
fn the_toast_of_a_silent_job_is_removed() {
    let mut page = Page::default();
    report(&mut page, "j", JobStatus::Running, 10);
    page.apply(Event::Held(Hold::Pointer, true))
        .apply(Event::Held(Hold::Pointer, false))
        .after(JOB_LIFE_MS - 1);
    assert_eq!(page.leaving(), 0);
    page.after(1);
    assert_eq!(page.leaving(), 1);
}

#[test]
fn jobs_do_not_keep_everything_else_waiting() {
    let mut page = Page::default();
    for n in 0..VISIBLE_MAX_TOASTS {
        report(&mut page, &n.to_string(), JobStatus::Running, 10);
    }
    page.came("x");
    assert_eq!(page.leaving(), 1);
    page.after(LEAVE_MS);
    assert_eq!(page.toasts()[VISIBLE_MAX_TOASTS - 1], "x");
}

#[test]
fn a_job_that_cannot_be_started_shows_why() {
    let mut page = Page::default();
    let queued = state("j", JobStatus::Queued, 0);
    page.apply(Event::Jobs(vec![queued.clone()]));
    page.apply(Event::JobRefused { state: queued, why: "the queue is full".to_owned() });
    let toasts = page.inbox.stack().visible();
    assert_eq!((toasts.len(), toasts[0].item.words().as_str()), (1, "Error: Import. the queue is full."));
    assert_eq!(jobs(&page), [(JobStatus::Failed, 0)]);
}

#[test]
fn only_a_worker_reports_a_job() {
    let mut page = Page::default();
    page.apply(Event::Began(Some("anna".into()))).fill(vec![], None).welcome(Resume::Complete, None);
    page.came_with("forged", |one| {
        set_report(one, "j", JobStatus::Running, 10);
        one.from = Some("mallory".to_owned());
    });
    page.came_with("of another", |one| {
        set_report(one, "j", JobStatus::Running, 10);
        one.collapse_key = Some("job:k".to_owned());
    });
    assert_eq!((page.rows().len(), jobs(&page)), (2, vec![]));
}

#[test]
fn a_low_window_has_fewer_places() {
    let mut page = Page::default();
    page.apply(Event::Places(2)).many(4);
    assert_eq!((page.toasts(), page.more()), (["n0", "n1"].map(String::from).into(), 2));
    page.apply(Event::Places(9));
    assert_eq!((page.toasts().len(), page.more()), (4, 0));
    page.came("n4").apply(Event::Places(0));
    assert_eq!((page.toasts().len(), page.leaving()), (VISIBLE_MAX_TOASTS, VISIBLE_MAX_TOASTS - 1));
}
