// The page: opens the engine, and shows the training or one operation.
import { call } from "./engine.js";
import { startTraining, pauseTraining } from "./training.js";
import { showTiles, startOperation } from "./operation.js";

export const element = (id) => document.getElementById(id);

/** Shows the message of an error until the next one; no error hides it. */
export function report(error) {
  element("error").hidden = !error;
  element("error").textContent = error ? error.message : "";
}

/** Runs an action of the user, and reports its error. */
export async function attempt(action) {
  try {
    report();
    await action();
  } catch (error) {
    report(error);
  }
}

/** Tabs of a list: click, or the arrow keys, Home and End. */
function connectTabs(list, changed) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      element(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    changed?.(chosen);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (to === undefined || at < 0) return;
    event.preventDefault();
    const tab = tabs[(to + tabs.length) % tabs.length];
    tab.focus();
    select(tab);
  });
}

/** The reason why the engine cannot run here, or nothing. */
async function missing() {
  if (!navigator.gpu) {
    return window.isSecureContext
      ? "This browser has no WebGPU, which the training needs. Current versions of Chrome, Edge, Firefox and Safari have it on most computers."
      : "WebGPU needs a secure page: open this one by https, or from localhost.";
  }
  if (!(await navigator.gpu.requestAdapter())) {
    return "This browser has WebGPU, but no graphics adapter for it. Turn on hardware acceleration in its settings, update the graphics driver, or try another browser.";
  }
}

async function open() {
  const reason = await missing();
  if (reason) {
    element("status").textContent = reason;
    element("status").className = "notice";
    document.documentElement.dataset.state = "missing";
    return;
  }
  const isSoftware = await call("open");
  const { info } = await navigator.gpu.requestAdapter();
  const name = info.description || [info.vendor, info.architecture].filter(Boolean).join(" ") || "WebGPU";
  element("status").textContent = `Device: ${name}${isSoftware ? ", which is software and slow" : ""}.`;
  await startTraining();
  let started = false;
  connectTabs(document.querySelector(".tabs"), (tab) => {
    if (tab.id !== "tab-operation") return;
    pauseTraining();
    if (!started) attempt(startOperation);
    started = true;
  });
  connectTabs(element("stepTabs"), (tab) => tab.id === "tab-tiles" && started && showTiles());
  element("app").hidden = false;
  document.documentElement.dataset.state = "ready";
}

open().catch((error) => {
  element("status").textContent = "The engine could not be started.";
  document.documentElement.dataset.state = "failed";
  report(error);
});
