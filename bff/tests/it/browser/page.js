const all = (hook) => [...document.querySelectorAll(`[data-testid="${hook}"]`)];
const text = (hook) => all(hook)[0]?.innerText ?? "";
const toast = (element) => ({
  id: element.dataset.id,
  severity: element.dataset.severity,
  text: element.textContent,
  leaving: "leaving" in element.dataset,
});
const pill = all("pill")[0]?.dataset ?? {};
return {
  phase: pill.phase ?? "",
  replica: pill.replica ?? null,
  pill: text("pill"),
  phases: window.seen?.phases ?? [],
  shown: window.seen?.toasts ?? [],
  polite: window.seen?.polite ?? [],
  assertive: window.seen?.assertive ?? [],
  rows: all("row").map((row) => row.dataset.id),
  row_texts: all("row").map((row) => row.textContent),
  toasts: all("toast").map(toast),
  held: document.querySelector(".toasts[data-held]") !== null,
  more: text("more"),
  race: Object.fromEntries(all("race-bar").map((bar) => [bar.dataset.replica, Number(bar.dataset.count)])),
  quiet: all("race-bar").filter((bar) => "quiet" in bar.dataset).length,
  notice: text("notice"),
  missed: Number(all("notice")[0]?.dataset.missed ?? 0),
  gap: all("notice").some((notice) => "gap" in notice.dataset),
  gap_rows: all("gap-row").length,
  who: all("who")[0]?.dataset.user ?? null,
  sign_in: all("sign-in").length > 0,
  count: text("count"),
  title: document.title,
  sent: all("row").filter((row) => "status" in row.dataset).map((row) => ({
    text: row.querySelector(".body").textContent,
    status: row.dataset.status,
    words: row.querySelector(".how-far").textContent,
  })),
  unread: all("row").filter((row) => "unread" in row.dataset).map((row) => row.textContent),
  jobs: all("row").filter((row) => "job" in row.dataset).map((row) => row.dataset.job),
  job_toasts: all("toast").filter((toast) => "job" in toast.dataset).length,
  clock_ms: performance.now(),
  overflow_px: document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
