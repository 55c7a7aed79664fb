// Plots, their tables, the slider, and the way from a point to its step. Text of a run is only ever textContent.
(() => {
  "use strict";
  const root = document.documentElement;
  const json = (id) => JSON.parse(document.getElementById(id)?.textContent || "null");
  const places = json("theme");
  const subjects = json("subjects");
  const sliders = json("sliders");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const plots = [...document.querySelectorAll("[data-figure]")];
  const hidden = new WeakMap();
  const drawn = new Set();
  let percent = 30;

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function isolated(text) {
    return element("bdi", text);
  }

  function number(value, digits = 4) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value).replace("-", "−");
    const size = Math.abs(value);
    const text = size >= 1e-4 && size < 1e7 ? Number(value.toPrecision(digits)).toString() : value.toExponential(digits - 1);
    return text.replaceAll("-", "−");
  }

  // ---- theme -------------------------------------------------------------------------------------------------------

  function themeColors() {
    const css = getComputedStyle(root);
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

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  }

  const themeSwitch = document.getElementById("theme-switch");

  function nameTheme() {
    themeSwitch.textContent = isDark() ? "Light" : "Dark";
    themeSwitch.setAttribute("aria-label", isDark() ? "Use light colours" : "Use dark colours");
  }

  function setTheme(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    nameTheme();
    for (const plot of drawn) draw(plot);
  }

  themeSwitch.addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
  dark.addEventListener("change", () => setTheme(root.dataset.theme));
  nameTheme();

  // ---- what lies in the page compressed ----------------------------------------------------------------------------

  async function inflated(id) {
    const text = atob(document.getElementById(id).textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let place = 0; place < text.length; place += 1) bytes[place] = text.charCodeAt(place);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Plotly is most of what a browser has to read. It is unpacked when the page stands, and runs when the first plot
  // comes near; its text has the hash that the policy of the page names.
  let library = null;
  const libraryThere = new Promise((there) => {
    const unpack = async () => {
      library = new TextDecoder().decode(await inflated("plotly"));
      root.dataset.plotly = "there";
      there();
    };
    window.addEventListener("load", () => (window.requestIdleCallback ?? setTimeout)(unpack, { timeout: 1000 }));
  });

  function startLibrary() {
    if (window.Plotly) return;
    document.head.append(element("script", library));
  }

  // ---- plots -------------------------------------------------------------------------------------------------------

  function positionOf(run) {
    const positions = sliders[run]?.positions ?? [];
    return positions.findLast((position) => position.percent <= percent) ?? positions[0];
  }

  function drawSoon(plot) {
    libraryThere.then(() => draw(plot));
  }

  function draw(plot) {
    startLibrary();
    const figure = json(plot.dataset.figure);
    const { data, layout } = themed(figure, themeColors());
    const off = hidden.get(plot) ?? new Set();
    const slots = positionOf(plot.dataset.run)?.slots ?? {};
    for (const trace of data) {
      trace.visible = !off.has(trace.legendgroup);
      Object.assign(trace, slots[trace.meta?.slot] ?? {});
    }
    if (plot.dataset.scale === "log") {
      layout.yaxis.type = "log";
      delete layout.yaxis.rangemode;
    }
    layout.dragmode = touch ? false : "zoom";
    const done = Plotly.react(plot, data, layout, { responsive: true, displaylogo: false, displayModeBar: false });
    if (!drawn.has(plot)) {
      drawn.add(plot);
      root.dataset.drawn = String(drawn.size);
      done.then(() => plot.on("plotly_click", (event) => followPoint(plot, event.points[0])));
    }
    return done;
  }

  function followPoint(plot, point) {
    if (!plot.dataset.links) return;
    const step = plot.dataset.links === "x" ? point.x : point.customdata;
    const run = plot.dataset.run !== "" ? plot.dataset.run : point.data.meta?.run;
    if (Number.isFinite(step) && run !== undefined) location.hash = `run=${run}&step=${Math.round(step)}`;
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) {
          near.unobserve(entry.target);
          drawSoon(entry.target);
        }
      }
    },
    { rootMargin: "300px" },
  );
  for (const plot of plots) near.observe(plot);

  let themeBeforePrint;
  window.addEventListener("beforeprint", () => {
    themeBeforePrint = root.dataset.theme;
    setTheme("light");
    // Printing does not wait: without the library, which is there a moment after the page, only words are printed.
    if (library !== null) for (const plot of plots) if (!plot.closest("[hidden]")) draw(plot);
    // Paper is narrower than the window, and plots are not drawn again for it: they are scaled.
    for (const image of document.querySelectorAll(".plot .main-svg")) {
      const { width, height } = image.getBoundingClientRect();
      if (width) image.setAttribute("viewBox", `0 0 ${width} ${height}`);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const image of document.querySelectorAll(".plot .main-svg")) image.removeAttribute("viewBox");
    setTheme(themeBeforePrint);
  });

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
    drawSoon(plot);
  });

  // ---- the slider: fit on the first k % ----------------------------------------------------------------------------

  const ranges = [...document.querySelectorAll("input.prefix")];

  function slide(value) {
    percent = value;
    for (const range of ranges) {
      range.value = String(value);
      range.setAttribute("aria-valuetext", `first ${value} percent`);
      range.parentElement.querySelector("output").textContent = `${value} %`;
    }
    for (const place of document.querySelectorAll(".prefix-told")) {
      const position = positionOf(place.dataset.run);
      place.querySelector(".error-made").textContent = position ? position.error : "–";
      place.querySelector(".prefix-text").textContent = position ? position.text : "";
    }
    for (const plot of drawn) {
      const slots = positionOf(plot.dataset.run)?.slots;
      const slotted = plot.data.map((trace, place) => [trace.meta?.slot, place]).filter(([slot]) => slots?.[slot]);
      if (!slotted.length) continue;
      const update = { x: slotted.map(([slot]) => slots[slot].x), y: slotted.map(([slot]) => slots[slot].y) };
      Plotly.restyle(plot, update, slotted.map(([, place]) => place));
    }
  }

  for (const range of ranges) range.addEventListener("input", () => slide(Number(range.value)));
  if (ranges.length) slide(Number(ranges[0].value));

  // ---- tables ------------------------------------------------------------------------------------------------------

  const STEPS = ["step", "known at step"];
  const ROWS_AT_ONCE = 200;

  function runOfRow(table, row) {
    if (table.run !== null) return table.run;
    return subjects.findIndex((subject) => subject.label === row[0]);
  }

  function cell(table, row, place) {
    const made = element("td");
    const run = STEPS.includes(table.columns[place]) ? runOfRow(table, row) : -1;
    if (run >= 0) {
      const link = element("a", number(row[place]));
      link.href = `#run=${run}&step=${row[place]}`;
      made.append(link);
    } else if (typeof row[place] === "string") {
      made.append(isolated(row[place]));
    } else {
      made.textContent = number(row[place]);
    }
    return made;
  }

  function fill(details) {
    const table = json(details.dataset.table);
    const place = details.querySelector(".scroll");
    if (place.firstChild) return;
    const made = element("table");
    const head = made.createTHead().insertRow();
    for (const column of table.columns) {
      const title = element("th", column);
      title.scope = "col";
      head.append(title);
    }
    const body = made.createTBody();
    const more = element("button", "", "quiet");
    more.type = "button";
    function grow() {
      const first = body.rows.length;
      for (const row of table.rows.slice(first, first + ROWS_AT_ONCE)) {
        const line = body.insertRow();
        row.forEach((_, column) => line.append(cell(table, row, column)));
      }
      more.hidden = body.rows.length >= table.rows.length;
      more.textContent = `${table.rows.length - body.rows.length} more rows`;
    }
    more.addEventListener("click", grow);
    grow();
    place.append(made);
    place.after(more, csvButton(table));
  }

  function csvButton(table) {
    const button = element("button", "Save as CSV", "quiet");
    button.type = "button";
    button.addEventListener("click", () => {
      const quoted = (value) => {
        const text = value === null ? "" : String(value);
        // A spreadsheet must not take text for a formula.
        const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
        return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
      };
      const text = [table.columns, ...table.rows].map((row) => row.map(quoted).join(",")).join("\n");
      const link = element("a");
      link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/csv" }));
      link.download = `${table.anchor}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
    return button;
  }

  for (const details of document.querySelectorAll("details[data-table]")) {
    details.addEventListener("toggle", () => details.open && fill(details));
  }

  // ---- one run of many ---------------------------------------------------------------------------------------------

  const choice = document.getElementById("run-choice");

  function chooseRun(run) {
    if (!choice) return;
    choice.value = String(run);
    for (const part of document.querySelectorAll("[data-of-run]")) part.hidden = part.dataset.ofRun !== choice.value;
  }

  choice?.addEventListener("change", () => chooseRun(choice.value));
  chooseRun(0);

  // ---- from a point to its step ------------------------------------------------------------------------------------

  const panel = document.getElementById("step");

  function showStep(run, step) {
    chooseRun(run);
    const body = panel.querySelector("tbody");
    body.replaceChildren();
    for (const details of document.querySelectorAll("details[data-table]")) {
      const table = json(details.dataset.table);
      const place = table.columns.findIndex((column) => STEPS.includes(column));
      if (place < 0) continue;
      for (const row of table.rows) {
        if (row[place] !== step || runOfRow(table, row) !== run) continue;
        table.columns.forEach((column, at) => {
          if (at <= place || row[at] === null) return;
          const line = body.insertRow();
          const title = element("th", table.title);
          title.scope = "row";
          line.append(title, element("td", column), element("td", number(row[at])));
        });
      }
    }
    const title = panel.querySelector("h2");
    title.replaceChildren(`Step ${step} of `, isolated(subjects[run].label));
    panel.hidden = false;
    panel.querySelector("p").hidden = body.rows.length > 0;
    panel.scrollIntoView({ block: "start" });
    title.focus({ preventScroll: true });
    document.dispatchEvent(new CustomEvent("covent:step", { detail: { run, step } }));
  }

  function follow() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const [run, step] = [asked.get("run"), asked.get("step")].map((text) => (/^\d{1,9}$/.test(text ?? "") ? Number(text) : NaN));
    if (Number.isInteger(step) && subjects[run]) showStep(run, step);
  }

  window.addEventListener("hashchange", follow);
  window.covent = Object.freeze({ element, isolated, number, json, inflated, subjects });
  root.dataset.ready = "true";
  // After the scripts of the page: the rollouts listen too.
  window.addEventListener("DOMContentLoaded", follow);
})();
