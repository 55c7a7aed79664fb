// Draws the plots from the JSON on the page, in the colours of the theme, and lets the legend hide and show lines.
(() => {
  "use strict";
  const places = JSON.parse(document.getElementById("theme").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const hidden = new WeakMap();

  function themeColors() {
    const css = getComputedStyle(document.documentElement);
    return Object.fromEntries(
      Object.entries(places).map(([name, placeholder]) => [placeholder, css.getPropertyValue(`--${name}`).trim()]),
    );
  }

  function themed(value, colors) {
    if (typeof value === "string") return colors[value] ?? value;
    if (Array.isArray(value)) return value.map((item) => themed(item, colors));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, colors)]));
    }
    return value;
  }

  function draw(plot) {
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    const { data, layout } = themed(figure, themeColors());
    const off = hidden.get(plot) ?? new Set();
    for (const trace of data) trace.visible = !off.has(trace.legendgroup);
    if (plot.dataset.scale === "log") {
      layout.yaxis.type = "log";
      delete layout.yaxis.rangemode;
    }
    layout.dragmode = touch ? false : "zoom";
    return Plotly.react(plot, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
  }

  const plots = [...document.querySelectorAll("[data-figure]")];
  // One plot a turn, so that the page can be read while the rest is drawn.
  (async () => {
    for (const plot of plots) {
      await draw(plot);
      await new Promise((resume) => setTimeout(resume, 0));
    }
    document.documentElement.dataset.drawn = String(plots.length);
  })();
  dark.addEventListener("change", () => plots.forEach(draw));

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-for]");
    if (!button) return;
    const plot = document.getElementById(button.dataset.for);
    const pressed = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(pressed));
    if (button.dataset.group === undefined) {
      plot.dataset.scale = pressed ? "log" : "linear";
    } else {
      const off = hidden.get(plot) ?? new Set();
      if (pressed) off.delete(button.dataset.group);
      else off.add(button.dataset.group);
      hidden.set(plot, off);
    }
    draw(plot);
  });
})();
