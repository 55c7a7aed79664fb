// A page about a run that goes on loads itself again now and then, and comes back as it was left.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (what) => [...document.querySelectorAll(what)];
  const keyOf = (button) => `${button.dataset.for} ${button.dataset.group ?? ""}`;
  const reachable = "a, button, select, input, summary, [tabindex]";
  const form = document.querySelector("#rollouts form");

  function change(control, value, event) {
    if (!control || value === undefined || control.value === value) return;
    control.value = value;
    control.dispatchEvent(new Event(event, { bubbles: true }));
  }

  const was = history.state?.covent;

  // ---- what a reader has set -----------------------------------------------------------------------------------------

  function left() {
    const place = all("main > section").findLast((section) => !section.hidden && section.getBoundingClientRect().top < 80);
    return {
      theme: root.dataset.theme,
      slider: document.querySelector("input.prefix")?.value,
      run: document.getElementById("run-choice")?.value,
      off: all("button[data-for]").filter((one) => one.dataset.group && one.ariaPressed === "false").map(keyOf),
      log: all("button[data-for]").filter((one) => !one.dataset.group && one.ariaPressed === "true").map(keyOf),
      open: all("details").map((one) => one.open),
      fields: form?.hidden === false ? [...form.elements].map((one) => (one.type === "checkbox" ? one.checked : one.value)) : was?.fields,
      place: place?.id,
      offset: place ? place.getBoundingClientRect().top : -window.scrollY,
      focus: all(reachable).indexOf(document.activeElement),
    };
  }

  function comeBack(was) {
    const isDark = root.dataset.theme ?? (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    if (was.theme && was.theme !== isDark) document.getElementById("theme-switch").click();
    change(document.querySelector("input.prefix"), was.slider, "input");
    change(document.getElementById("run-choice"), was.run, "change");
    for (const button of all("button[data-for]")) {
      if ((was.off.includes(keyOf(button)) && button.dataset.group) || was.log.includes(keyOf(button))) button.click();
    }
    all("details").forEach((one, place) => (one.open = was.open[place] ?? one.open));
    all(reachable)[was.focus]?.focus({ preventScroll: true });
    const place = was.place ? document.getElementById(was.place) : null;
    window.scrollBy({ top: (place ?? document.body).getBoundingClientRect().top - was.offset, behavior: "instant" });
  }

  function refilter(fields) {
    if (!fields || !form) return;
    fields.forEach((value, place) => {
      const field = form.elements[place];
      if (typeof value === "boolean") field.checked = value;
      else field.value = value;
    });
    form.dispatchEvent(new Event("input", { bubbles: true }));
  }

  if (was) {
    history.replaceState(null, "");
    history.scrollRestoration = "manual";
    document.addEventListener("covent:rollouts", () => refilter(was.fields), { once: true });
    window.addEventListener("DOMContentLoaded", () => comeBack(was));
  }

  // ---- loading again -------------------------------------------------------------------------------------------------

  const seconds = Number(root.dataset.reload);
  if (!seconds) return;
  const QUIET_MS = 4000;
  const stay = document.querySelector("#live button");
  let touched = -QUIET_MS;
  for (const name of ["pointerdown", "pointermove", "wheel", "keydown", "scroll"]) {
    window.addEventListener(name, () => (touched = performance.now()), { passive: true, capture: true });
  }
  stay.hidden = false;
  stay.addEventListener("click", () => (stay.ariaPressed = String(stay.ariaPressed !== "true")));

  function again() {
    const busy = root.dataset.plotly === undefined || performance.now() - touched < QUIET_MS || !document.getSelection().isCollapsed;
    if (busy || document.hidden || stay.ariaPressed === "true") return setTimeout(again, 1000);
    history.replaceState({ covent: left() }, "");
    location.reload();
  }

  setTimeout(again, 1000 * seconds);
})();
