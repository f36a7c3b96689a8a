// Calls of the engine, which runs in a worker.
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let next = 0;
let broken;

worker.onmessage = ({ data: { id, value, error, seconds } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error === undefined) resolve({ value, seconds });
  else reject(new Error(error));
};
worker.onerror = (event) => {
  broken = new Error(`the engine stopped: ${event.message ?? "its script could not be loaded"}; reload the page`);
  waiting.forEach(({ reject }) => reject(broken));
  waiting.clear();
};

/** The value of a method of Session, and the seconds that it took. */
export function timed(method, ...parameters) {
  if (broken) return Promise.reject(broken);
  return new Promise((resolve, reject) => {
    waiting.set(next, { resolve, reject });
    worker.postMessage({ id: next++, method, parameters });
  });
}

/** The value of a method of Session. */
export const call = async (method, ...parameters) => (await timed(method, ...parameters)).value;
