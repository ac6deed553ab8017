// Drives one release of BullMQ for the tests: a JSON command a line in, a JSON reply a line out.
//
//   node driver.mjs <folder with node_modules> <package> <redis url> [sticks]
//
// Everything is kept per prefix, so that one process serves all tests; "close" ends a test's.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, packageName, redisUrl, sticks] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { FlowProducer, Queue, QueueEvents, Worker } = require(packageName);
const { Redis } = require("ioredis");

const EVENTS = ["added", "waiting", "active", "delayed", "completed", "failed", "retries-exhausted",
  "duplicated", "stalled", "paused", "resumed", "drained"];

function connection() {
  const url = new URL(redisUrl);
  const where = url.protocol === "unix:"
    ? { path: url.pathname }
    : { host: url.hostname, port: Number(url.port || 6379), db: Number(url.pathname.slice(1) || 0) };
  return { ...where, maxRetriesPerRequest: null };
}

const ledger = new Redis(connection());
const tests = new Map(); // prefix -> { queues, workers, listeners, failedOnce, errors }

function test(prefix) {
  if (!tests.has(prefix)) {
    tests.set(prefix, { queues: new Map(), workers: new Map(), listeners: new Map(),
      failedOnce: new Set(), errors: [] });
  }
  return tests.get(prefix);
}

function watched(object, errors) {
  object.on("error", (error) => errors.push(String(error)));
  return object;
}

function queueOf({ prefix, queue }) {
  const { queues, errors } = test(prefix);
  if (!queues.has(queue)) {
    queues.set(queue, watched(new Queue(queue, { connection: connection(), prefix }), errors));
  }
  return queues.get(queue);
}

async function listenerOf({ prefix, queue }) {
  const { listeners, errors } = test(prefix);
  if (!listeners.has(queue)) {
    const events = new QueueEvents(queue, { connection: connection(), prefix, lastEventId: "0-0" });
    const seen = [];
    for (const name of EVENTS) events.on(name, (fields) => seen.push([name, fields?.jobId ? fields : {}]));
    listeners.set(queue, { events: watched(events, errors), seen });
    await events.waitUntilReady();
  }
  return listeners.get(queue);
}

// What Node's workers can do; the Python side has the same tasks under the same names.
const TASKS = {
  echo: async (job) => job.data,
  double: async (job) => job.data.n * 2,
  fail: async (job) => { throw new Error(job.data.reason); },
  stick: async () => { if (sticks) await new Promise(() => {}); return "free"; },
  count: async (job, { prefix }) => {
    await ledger.multi().hincrby(`${prefix}-ledger`, job.data.n, 1)
      .hincrby(`${prefix}-runners`, packageName, 1).exec();
  },
  flaky: async (job, { failedOnce }) => {
    if (failedOnce.has(job.id)) return "well";
    failedOnce.add(job.id);
    throw new Error("not yet");
  },
};

// The state first: a job that is finished by then has its outcome in what is read after.
async function described(queue, id) {
  const state = await queue.getJobState(id);
  const job = await queue.getJob(id);
  return job ? { ...job.toJSON(), state, isFailed: await job.isFailed() } : null;
}

const COMMANDS = {
  add: async (at) => ({ id: (await queueOf(at).add(at.name, at.data, at.opts)).id }),
  addBulk: async (at) => (await queueOf(at).addBulk(at.jobs)).map((job) => job.id),
  flow: async ({ prefix, tree }) => {
    const flows = new FlowProducer({ connection: connection(), prefix });
    await flows.add(tree);
    await flows.close();
  },
  job: async (at) => described(queueOf(at), at.id),
  jobs: async (at) => Promise.all((await queueOf(at).getJobs(at.types, 0, -1, true))
    .map((job) => described(queueOf(at), job.id))),
  counts: async (at) => queueOf(at).getJobCounts(),
  workers: async (at) => (await queueOf(at).getWorkers()).map((worker) => worker.rawname),
  retry: async (at) => { await (await queueOf(at).getJob(at.id)).retry(at.state ?? "failed"); },
  retryAll: async (at) => { await queueOf(at).retryJobs({ state: "failed" }); },
  promote: async (at) => { await (await queueOf(at).getJob(at.id)).promote(); },
  remove: async (at) => { await (await queueOf(at).getJob(at.id)).remove(); },
  obliterate: async (at) => { await queueOf(at).obliterate({ force: true }); },
  pause: async (at) => { await queueOf(at).pause(); },
  resume: async (at) => { await queueOf(at).resume(); },
  isPaused: async (at) => queueOf(at).isPaused(),
  concurrency: async (at) => { await queueOf(at).setGlobalConcurrency(at.max); },
  rateLimit: async (at) => { await queueOf(at).setGlobalRateLimit(at.max, at.duration); },
  listen: async (at) => { await listenerOf(at); },
  seen: async (at) => (await listenerOf(at)).seen,
  outcome: async (at) => {
    const { events } = await listenerOf(at);
    const job = await queueOf(at).getJob(at.id);
    try {
      return { value: (await job.waitUntilFinished(events, 20000)) ?? null };
    } catch (error) {
      return { error: error.message };
    }
  },
  work: async (at) => {
    const here = test(at.prefix);
    const run = (job) => {
      if (!(job.name in TASKS)) throw new Error(`Node knows no ${job.name}`);
      return TASKS[job.name](job, { prefix: at.prefix, failedOnce: here.failedOnce });
    };
    const worker = new Worker(at.queue, run, { connection: connection(), prefix: at.prefix, ...at.opts });
    here.workers.set(at.queue, watched(worker, here.errors));
    await worker.waitUntilReady();
  },
  stopWorking: async (at) => {
    const { workers } = test(at.prefix);
    await workers.get(at.queue).close();
    workers.delete(at.queue);
  },
  close: async ({ prefix }) => {
    const { queues, workers, listeners, errors } = test(prefix);
    tests.delete(prefix);
    for (const worker of workers.values()) await worker.close(true);
    for (const { events } of listeners.values()) await events.close();
    for (const queue of queues.values()) await queue.close();
    return errors;
  },
};

async function answer(line) {
  const { call, command, ...at } = JSON.parse(line);
  try {
    const reply = await COMMANDS[command](at);
    return { call, reply: reply ?? null };
  } catch (error) {
    return { call, error: String(error?.stack ?? error) };
  }
}

createInterface({ input: process.stdin })
  .on("line", async (line) => { process.stdout.write(`${JSON.stringify(await answer(line))}\n`); })
  .on("close", () => process.exit(0));
