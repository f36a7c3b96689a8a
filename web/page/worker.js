// The engine's thread. A request names a method of Session; requests run one after the other.
import init, { Session } from "./parallax_web.js";

let session;
let last = Promise.resolve();

async function answer({ id, method, parameters }) {
  try {
    if (method === "open") {
      await init({ module_or_path: "parallax_web_bg.wasm" });
      session = await Session.open();
    }
    const started = performance.now();
    const value = method === "open" ? session.isSoftware() : await session[method](...parameters);
    postMessage({ id, value, seconds: (performance.now() - started) / 1000 });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
}

onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
