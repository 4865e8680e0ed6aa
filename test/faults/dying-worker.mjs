/** A worker thread that dies as the name of its tensor says, and is the real one otherwise. */
import runTask from "../../dist/worker/main.js";

const DEATHS = {
  exit: () => process.exit(7),
  throw: () => {
    setImmediate(() => {
      throw new Error("thrown where no task catches it");
    });
    // Never answers: the thread is gone before.
    return new Promise(() => undefined);
  },
  memory: () => {
    const held = [];
    for (;;) held.push(new Array(1e6).fill(held.length));
  },
};

export default function runOrDie(task) {
  const name = task.source?.tensorName.match(/dies_of_(\w+?)\./)?.[1];
  return name === undefined ? runTask(task) : DEATHS[name]();
}
