const find = (hook) => document.querySelector(`[data-testid="${hook}"]`);
const pill = find("pill");
const seen = { phases: [pill.dataset.phase], toasts: [], polite: [], assertive: [] };
window.seen = seen;

const added = (element, take) => {
  const look = (changes) => changes
    .flatMap((change) => [...change.addedNodes])
    .filter((node) => node.nodeType === Node.ELEMENT_NODE)
    .forEach(take);
  new MutationObserver(look).observe(element, { childList: true });
};
new MutationObserver(() => seen.phases.push(pill.dataset.phase))
  .observe(pill, { attributes: true, attributeFilter: ["data-phase"] });
added(document.querySelector(".toasts ol"), (toast) => seen.toasts.push({
  id: toast.dataset.id,
  severity: toast.dataset.severity,
  text: toast.textContent,
  leaving: false,
}));
added(find("announcer-polite"), (said) => seen.polite.push(said.textContent));
added(find("announcer-assertive"), (said) => seen.assertive.push(said.textContent));
