use std::time::{Duration, SystemTime};

use carillon_protocol::format_timestamp;
use serde_json::json;

/// A notification as a business has them.
pub(crate) struct Sample {
    severity: &'static str,
    title: &'static str,
    body: &'static str,
    /// Where it leads: a label and an address.
    action: Option<(&'static str, &'static str)>,
    seconds_ago: u64,
}

const fn sample(seconds_ago: u64, severity: &'static str, title: &'static str, body: &'static str) -> Sample {
    Sample { severity, title, body, action: None, seconds_ago }
}

impl Sample {
    const fn leading(self, label: &'static str, url: &'static str) -> Self {
        Self { action: Some((label, url)), ..self }
    }

    pub(crate) fn to_json(&self) -> String {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let at = since_1970 - Duration::from_secs(self.seconds_ago);
        json!({
            "title": self.title,
            "body": self.body,
            "severity": self.severity,
            "created_at": format_timestamp(u64::try_from(at.as_millis()).unwrap()),
            "action": self.action.map(|(label, url)| json!({ "label": label, "url": url })),
        })
        .to_string()
    }
}

/// What came since the morning, oldest first.
pub(crate) const DAY: [Sample; 28] = [
    sample(21_600, "info", "Nightly backup started", "orders, 3 of 3 shards"),
    sample(20_900, "success", "Nightly backup finished", "41 GB in 11 min"),
    sample(18_000, "info", "Certificate renewed", "api.example.org, valid for 90 days"),
    sample(14_500, "info", "Deploy started", "checkout 2.14.0 to production"),
    sample(14_300, "success", "Deploy finished", "checkout 2.14.0 is live in 3 regions"),
    sample(12_600, "warning", "Disk almost full", "db-2 has 9 % left"),
    sample(12_100, "success", "Disk extended", "db-2 has 54 % left"),
    sample(10_800, "info", "New sign-in", "Firefox on Linux, from Lisbon"),
    sample(9_200, "info", "Import started", "products.csv, 18,204 rows"),
    sample(8_950, "success", "Import finished", "18,204 rows, 12 skipped"),
    sample(7_400, "error", "Payment failed", "Order 4711: the card was declined"),
    sample(7_100, "success", "Payment received", "Order 4711, 89.00 EUR"),
    sample(5_400, "info", "Invoice sent", "2026-1187, due in 14 days"),
    sample(4_700, "warning", "Slow responses", "search: 95 % within 1.9 s"),
    sample(4_300, "success", "Responses are quick again", "search: 95 % within 180 ms"),
    sample(3_500, "info", "Two comments", "On “Plan for the winter release”"),
    sample(2_900, "info", "Deploy started", "search 5.2.1 to production"),
    sample(2_750, "success", "Deploy finished", "search 5.2.1 is live in 3 regions"),
    sample(2_200, "info", "Report is ready", "Sales, October").leading("Open the report", "/reports/10"),
    sample(1_800, "info", "Parcel on its way", "Order 4698 arrives tomorrow"),
    sample(1_300, "warning", "Login blocked", "Five wrong passwords in a row"),
    sample(900, "info", "Password changed", "All other sessions have ended"),
    sample(620, "success", "Payment received", "Order 4712, 240.50 EUR"),
    sample(430, "info", "Export started", "Customers, 96,310 rows"),
    sample(310, "success", "Export finished", "Customers, 96,310 rows").leading("Download", "/exports/96"),
    sample(190, "error", "Job failed", "Thumbnails: 3 of 3 tries ran out of memory"),
    sample(125, "info", "Job started again", "Thumbnails, with 2 GB"),
    sample(70, "success", "Job finished", "Thumbnails: 1,204 pictures in 48 s"),
];

/// What comes now, oldest first.
pub(crate) const LATEST: [Sample; 4] = [
    sample(21, "info", "New sign-in", "Chrome on Android, from Porto"),
    sample(9, "warning", "Certificate ends soon", "shop.example.org has 6 days left"),
    sample(4, "error", "Payment failed", "Order 4713: the card has expired")
        .leading("Ask for another card", "/orders/4713"),
    sample(0, "success", "Deploy finished", "checkout 2.15.0 is live in 3 regions"),
];

/// What comes on top of that.
pub(crate) const MORE: [Sample; 4] = [
    sample(0, "success", "Payment received", "Order 4714, 31.20 EUR"),
    sample(0, "info", "Parcel delivered", "Order 4698 was left at the front door"),
    sample(0, "warning", "Queue is long", "emails: 1,840 wait, oldest for 4 min"),
    sample(0, "success", "Queue is empty again", "emails: all sent"),
];

/// Texts that are hard to show: long, without spaces, from right to left, mixed, in other scripts.
pub(crate) const ODD: [Sample; 5] = [
    sample(
        0,
        "error",
        "The import of the supplier's product list stopped after row 14,882 of 18,204, and what was \
         imported until then is kept until somebody looks at it",
        "Row 14,883 has a price that is no number (“on request”). Correct the row and start the import \
         again from there, or skip the row: it is then listed at the end of the report. Prices of other \
         rows were not changed. Rows that were imported are marked and are not imported a second time. \
         The file is kept for 30 days. The import was started by the schedule of every night, which is \
         paused until this is settled, and can be started again by hand from the same page.",
    )
    .leading("Look at row 14,883 of the list and decide", "/imports/118/rows/14883"),
    sample(
        0,
        "info",
        "registry.example.org/team/checkout-service@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b",
        "https://ci.example.org/pipelines/checkout-service/2026/11/21/run-118-attempt-2/artifacts/report.html?tab=failures",
    ),
    sample(0, "success", "تم استلام الدفعة", "الطلب رقم 4711: تم دفع 89.00 يورو بنجاح"),
    sample(0, "warning", "הגיבוי checkout-2.15.0 מתעכב", "ממתין ל-db-2 כבר 12 דקות"),
    sample(0, "info", "Ünïcödé ✓ — κόσμε — Привет", "First line\nSecond line\n\tThird one, after a tab"),
];
