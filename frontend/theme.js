// Runs before the first paint, so that a chosen theme does not flash. `theme.rs` makes the choice.
try {
  const theme = localStorage.getItem("carillon-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing follows the device.
}
