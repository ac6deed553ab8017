// Drives one release of BullMQ for the tests: a JSON command a line in, a JSON reply a line out.
//
//   node driver.mjs <folder with node_modules> <package> <redis url> [sticks]
//
// Everything is kept per prefix, so that one process serves all tests; "close" ends a test's.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const [folder, packageName, redisUrl, sticks] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { DelayedError, FlowProducer, Queue, QueueEvents, RateLimitError, UnrecoverableError, WaitingChildrenError,
  WaitingError, Worker } = require(packageName);
const { Redis } = require("ioredis");
const { createBullBoard } = require("@bull-board/api");
const { BullMQAdapter } = require("@bull-board/api/bullMQAdapter");

const EVENTS = ["added", "waiting", "active", "delayed", "completed", "failed", "retries-exhausted",
  "duplicated", "stalled", "paused", "resumed", "drained", "progress", "removed", "deduplicated",
  "waiting-children", "cleaned", "greeting"];

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

const sumOf = (values) => Object.values(values).reduce((a, b) => a + b, 0);

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
  giveUp: async (job) => { throw new UnrecoverableError(job.data.reason); },
  hold: async (job, { prefix }) => { // until somebody pushes to the gate
    const own = ledger.duplicate();
    try { await own.blpop(`${prefix}-gate`, 20); } finally { own.disconnect(); }
    return "held";
  },
  sum: async (job) => job.data.n + sumOf(await job.getChildrenValues()),
  look: async (job) => ({
    values: await job.getChildrenValues(),
    ignored: await (job.getIgnoredChildrenFailures ?? job.getFailedChildrenValues).call(job),
  }),
  spawn: async (job, { prefix, token }) => {
    const { queue, n } = job.data;
    const done = await job.getChildrenValues();
    if (Object.keys(done).length) return sumOf(done);
    const opts = { jobId: `${job.id}-child`, parent: { id: job.id, queue: job.queueQualifiedName } };
    await queueOf({ prefix, queue }).add("double", { n }, opts);
    if (await job.moveToWaitingChildren(token)) throw new WaitingChildrenError();
    return "not moved";
  },
  tell: async (job) => {
    await job.updateProgress({ done: 1, of: 2 });
    await job.log("first line");
    await job.log("second line");
    await job.updateData({ ...job.data, told: true });
  },
  later: async (job, { token, failedOnce }) => {
    if (failedOnce.has(job.id)) return "ran again";
    failedOnce.add(job.id);
    await job.moveToDelayed(Date.now() + job.data.ms, token);
    throw new DelayedError();
  },
  putBack: async (job, { token, failedOnce }) => {
    if (failedOnce.has(job.id)) return "ran again";
    failedOnce.add(job.id);
    await job.moveToWait(token);
    throw new WaitingError();
  },
  limited: async (job, { prefix, failedOnce }) => {
    if (failedOnce.has(job.id)) return "ran again";
    failedOnce.add(job.id);
    await queueOf({ prefix, queue: job.queueName }).rateLimit(job.data.ms);
    throw new RateLimitError();
  },
};

// The state first: a job that is finished by then has its outcome in what is read after.
async function described(queue, id) {
  const state = await queue.getJobState(id);
  const job = await queue.getJob(id);
  return job ? { ...job.toJSON(), state, isFailed: await job.isFailed() } : null;
}

// A tree of jobs as FlowProducer gives it, by what the tests look at.
async function tree({ job, children }) {
  const below = await Promise.all((children ?? []).map(tree));
  return { id: job.id, queue: job.queueName, name: job.name, state: await job.getState(), children: below };
}

async function flowing(prefix, run) {
  const flows = new FlowProducer({ connection: connection(), prefix });
  try {
    const found = await run(flows);
    return found ? await tree(found) : null;
  } finally {
    await flows.close();
  }
}

// Bull Board's own handlers over these queues, without a web server: what a request would give.
async function board({ prefix, queues, method, route, params, query, body }) {
  const served = {};
  const serverAdapter = new Proxy({}, {
    get: (_, setter) => (value) => { served[setter] = value; return serverAdapter; },
  });
  const adapters = queues.map((queue) => new BullMQAdapter(queueOf({ prefix, queue })));
  createBullBoard({ queues: adapters, serverAdapter, options: { uiBasePath: "unused" } });
  const { handler } = served.setApiRoutes
    .find((known) => [known.method].flat().includes(method) && [known.route].flat().includes(route));
  return handler({ queues: served.setQueues, params: params ?? {}, query: query ?? {}, body: body ?? {},
    headers: {}, uiConfig: {} });
}

const COMMANDS = {
  add: async (at) => ({ id: (await queueOf(at).add(at.name, at.data, at.opts)).id }),
  addBulk: async (at) => (await queueOf(at).addBulk(at.jobs)).map((job) => job.id),
  flow: async (at) => flowing(at.prefix, (flows) => flows.add(at.tree)),
  getFlow: async (at) => flowing(at.prefix, (flows) =>
    flows.getFlow({ queueName: at.queue, id: at.id, prefix: at.prefix })),
  children: async (at) => {
    const job = await queueOf(at).getJob(at.id);
    return {
      values: await job.getChildrenValues(),
      dependencies: await job.getDependencies(),
      counts: await job.getDependenciesCount({ failed: true, ignored: true, processed: true, unprocessed: true }),
      ignored: await (job.getIgnoredChildrenFailures ?? job.getFailedChildrenValues).call(job),
    };
  },
  dropUnprocessedChildren: async (at) => {
    await (await queueOf(at).getJob(at.id)).removeUnprocessedChildren();
  },
  removeChildDependency: async (at) =>
    (await queueOf(at).getJob(at.id)).removeChildDependency(),
  job: async (at) => described(queueOf(at), at.id),
  jobs: async (at) => Promise.all((await queueOf(at).getJobs(at.types, 0, -1, true))
    .map((job) => described(queueOf(at), job.id))),
  counts: async (at) => queueOf(at).getJobCounts(),
  countsPerPriority: async (at) => queueOf(at).getCountsPerPriority(at.priorities),
  logs: async (at) => queueOf(at).getJobLogs(at.id),
  metrics: async (at) => queueOf(at).getMetrics(at.kind),
  owner: async (at) => queueOf(at).getDeduplicationJobId(at.key),
  schedule: async (at) => {
    const job = await queueOf(at).upsertJobScheduler(at.id, at.repeat, at.template);
    return job?.id;
  },
  unschedule: async (at) => queueOf(at).removeJobScheduler(at.id),
  schedules: async (at) => queueOf(at).getJobSchedulers(0, -1, true),
  board,
  workers: async (at) => (await queueOf(at).getWorkers()).map((worker) => worker.rawname),
  retry: async (at) => { await (await queueOf(at).getJob(at.id)).retry(at.state ?? "failed"); },
  retryAll: async (at) => { await queueOf(at).retryJobs({ state: "failed" }); },
  promote: async (at) => { await (await queueOf(at).getJob(at.id)).promote(); },
  update: async (at) => { await (await queueOf(at).getJob(at.id)).updateData(at.data); },
  changePriority: async (at) => {
    await (await queueOf(at).getJob(at.id)).changePriority({ priority: at.priority });
  },
  changeDelay: async (at) => { await (await queueOf(at).getJob(at.id)).changeDelay(at.delay); },
  drain: async (at) => { await queueOf(at).drain(at.delayed); },
  clean: async (at) => queueOf(at).clean(0, 1000, at.state),
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
    const run = (job, token) => {
      if (!(job.name in TASKS)) throw new Error(`Node knows no ${job.name}`);
      return TASKS[job.name](job, { prefix: at.prefix, failedOnce: here.failedOnce, token });
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
  errors: async ({ prefix }) => test(prefix).errors.splice(0),
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
