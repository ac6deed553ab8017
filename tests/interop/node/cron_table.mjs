// Prints tests/unit/cron_table.json: what cron-parser, called as BullMQ's schedulers call it, says
// about patterns x time zones x moments. To make it again, after `npm install` in this folder:
//
//   node tests/interop/node/cron_table.mjs tests/interop/node > tests/unit/cron_table.json
//
// A row is [pattern, zone, moment, fires]. Moments are ISO times in UTC, fires the next three as
// epoch milliseconds, each asked for afresh. "refused": the pattern or zone is not taken, or never
// fires. A null instead of a fire: the parser gives up or goes back in time there.
import { createRequire } from "node:module";
import { resolve } from "node:path";

const modules = createRequire(resolve(process.argv[2], "package.json"));
const fromBullmq = createRequire(modules.resolve("bullmq"));
const { CronExpressionParser } = fromBullmq("cron-parser");

const ANY_DAY = ["2024-01-31T10:00:00.500Z", "2023-12-31T23:59:59.000Z"];
const LEAP = ["2024-02-28T12:00:00.000Z", "2025-02-28T12:00:00.000Z", "2096-03-01T00:00:00.000Z"];

const GROUPS = {
  fields: [["UTC"], ANY_DAY, [
    "* * * * *", "* * * * * *", "*/5 * * * *", "*/7 * * * *", "0 */5 * * *", "5/10 * * * *", "50/3 * * * *",
    "10-20 * * * *", "10-20/3 * * * *", "1,15,45 * * * *", "45,1,15 * * * *", "1-5,30-40/5 * * * *", "5/60 * * * *",
    "*/100 * * * *", "0 0 * * *", "59 23 * * *", "0 9-17 * * *", "0 9-17/2 * * *", "0 22,2 * * *", "30 */10 * * * *",
    "*/30 59 23 * * *", "15 30 10 * * *", "0 0 0 1 1 *", "0 30 3 * * *", "01 002 * * *", "000 * * * *", "? ? ? ? ?",
    "*/5 ? * ? *", "?/15 * * * *", "  */5   0 * * *  ", "0\t0 * * *", "0 0 1 */5 *", "0 0 1 3/4 *", "0 0 1 5-7 *",
    "0 0 31 * *", "0 0 30 * *", "0 0 */10 * *", "0 0 */31 * *", "0 0 15-20 * *", "0 0 1,31 1,12 *", "59 59 23 31 12 *",
  ]],
  short: [["UTC"], ANY_DAY, ["*", "0", "*/5", "5 1", "* *", "1 * 5", "15 * *", "0 1 * *", "12 1 * 0"]],
  names: [["UTC"], ANY_DAY, [
    "0 0 1 jan *", "0 0 1 JAN,Jul *", "0 0 1 jan-mar *", "0 0 1 feb-nov/3 *", "0 0 * * mon", "0 0 * * MON-fri",
    "0 0 * * sun,Wed", "0 0 * * mon-sat/2", "0 0 * * sun-sat", "0 0 1 oct fri", "0 0 12 ? dec tue", "0 0 * * jan",
    "0 0 * mon *",
  ]],
  weekdays: [["UTC"], ANY_DAY, [
    "0 0 * * 0", "0 0 * * 7", "0 0 * * 07", "0 0 * * 1-5", "0 0 * * 5-7", "0 0 * * 6-7", "0 0 * * 0-7", "0 0 * * 7-7",
    "0 0 * * */2", "0 0 * * */7", "0 0 * * 5/2", "0 0 * * 0/2", "0 0 * * 1-7/2", "0 0 * * 2,4", "0 0 * * 7,1-6",
  ]],
  "day or weekday": [["UTC"], ANY_DAY, [
    "0 0 13 * 5", "0 0 1,15 * 1", "0 0 */2 * 1", "0 0 1-31 * 1", "0 0 */1 * 1", "0 0 1 * 0-6", "0 0 1 * */1",
    "0 0 ? * 5", "0 0 13 * ?", "0 0 * * 5", "0 0 13 * *", "0 0 31 2 1", "0 0 L * 1", "0 0 1 * 5L", "0 0 13 * 5#2",
    "0 0 31 4,6 1",
  ]],
  "last and n-th": [["UTC"], ANY_DAY, [
    "0 0 L * *", "0 0 L 2 *", "0 0 1,L * *", "0 0 L,15 * *", "0 0 31,L * *", "0 0 31,L 2 *", "0 0 5-6L * *", "0 0 1L * *",
    "0 0 * * 5L", "0 0 * * 0L", "0 0 * * 7L", "0 0 * * friL", "0 0 * * 1L,3L", "0 0 * * 1,3L", "0 0 * * 1-5L", "0 0 ? * 2L",
    "0 0 * * 5#1", "0 0 * * 5#2", "0 0 * * 5#5", "0 0 * 2 5#5", "0 0 * * fri#3", "0 0 * * 0#1", "0 0 * * 7#1",
    "0 0 * * 2#03", "0 0 * * *#1", "0 30 9 L * *", "0 0 12 ? * 2#1",
  ]],
  aliases: [["UTC", "America/New_York"], ANY_DAY, [
    "@secondly", "@minutely", "@hourly", "@daily", "@weekly", "@weekdays", "@weekends", "@monthly", "@yearly", "@annually",
  ]],
  "oddly spelled": [["UTC"], ANY_DAY.slice(0, 1), [
    "5* * * * *", "*-5 * * * *", "?-5 * * * *", "1-5-9 * * * *", "1-5- * * * *", "1/5-10 * * * *", "*/5? * * * *",
    "0 0 1 janfeb *", "0 0 1 1jan *", "0 0 *L * *", "0 0 * * 1L-2", "0 0 * * 8L", "0 0 * * 5L#1", "0 0 1? * 5",
  ]],
  "leap years": [["UTC", "Asia/Kathmandu"], LEAP, [
    "0 0 29 2 *", "0 0 28,29 2 *", "0 0 29-31 2 *", "0 0 L 2 *", "0 0 1 3 *", "0 0 30 2,4 *", "0 12 29 2,3 *",
    "0 0 29 2 1", "59 59 23 29 2 *",
  ]],
  refused: [["UTC"], ANY_DAY.slice(0, 1), [
    " ", "60 * * * *", "-1 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 8",
    "60 * * * * *", "* * * * * * *", "0 0 1 1 * 2025", "*/0 * * * *", "*/-5 * * * *", "*/ * * * *", "*/a * * * *",
    "/5 * * * *", "1/2/3 * * * *", "1- * * * *", "5-1 * * * *", "0 22-2 * * *", "0 0 1 nov-feb *", "0 0 * * fri-mon",
    "0 0 * * 7-1", "0-60 * * * *", "0 0 0-5 * *", "0 0 1 13-14 *", "1,,2 * * * *", "1, * * * *", ",1 * * * *",
    "0,0 * * * *", "*,5 * * * *", "1,5-9,7 * * * *", "0 0 * * 0,7", "0 0 * * 5-7,0", "1.5 * * * *", "+1 * * * *",
    "0x1 * * * *", "*5 * * * *", "** * * * *", "a * * * *", "jan * * * *", "0 0 mon * *", "0 0 1 january *",
    "0 0 * * sunday", "0 0 1 xjan *", "0 0 l * *", "0 L * * *", "0 0 * L *", "0 0 * * L", "0 0 * * L5", "0 0 * * 5LL",
    "0 0 LL * *", "0 0 L,L * *", "0 0 L-3 * *", "0 0 1-L * *", "0 0 123L * *", "0 0 15W * *", "0 0 LW * *", "0 0 * * 5W",
    "0 0 * * 5#0", "0 0 * * 5#6", "0 0 * * 5#", "0 0 * * #2", "0 0 * * 5#1#2", "0 0 * * 1,5#2", "0 0 * * 1-5#2",
    "0 0 * * */2#1", "0 0 * * 1#1,2#2", "0 0 5#1 * *", "0 0 * * 8#1", "h * * * *", "@midnight", "@reboot", "@Daily",
    "@hourly ", "@every 5m", "@", "0 0 30 2 *", "0 0 31 2 *", "0 0 31 4 *", "0 0 30-31 2 *", "0 0 30 feb *", "0 0 31 4,6 *",
    "0 0 31 4,6,9,11 *", "0 0 31 2,4 *",
  ]],
  zones: [
    ["UTC", "utc", "GMT", "Etc/UTC", "Zulu", "Etc/GMT+5", "UTC+3", "utc+3", "UTC-03:30", "UTC+5:45", "UTC+14:00", "EST", "CET",
      "US/Eastern", "europe/berlin", "Asia/Calcutta", "Asia/Kolkata", "Asia/Kathmandu", "Africa/Casablanca",
      "Pacific/Kiritimati", "Pacific/Pago_Pago", "Mars/Olympus", "", "Z", "+02:00", "GMT+2", "UTC+", "Europe", "Europe/",
      "../etc", " Europe/Berlin", "localtime", "posix/UTC", "right/UTC", "Factory"],
    ["2024-01-31T10:00:00.000Z"], ["0 12 * * *"],
  ],
};

// Around each change of clocks: [zone, instant of the change in UTC].
const CHANGES = [
  ["Europe/Berlin", "2024-03-31T01:00:00Z"], ["Europe/Berlin", "2024-10-27T01:00:00Z"],
  ["America/New_York", "2024-03-10T07:00:00Z"], ["America/New_York", "2024-11-03T06:00:00Z"],
  ["America/St_Johns", "2024-03-10T05:30:00Z"], ["America/St_Johns", "2024-11-03T04:30:00Z"],
  ["Australia/Lord_Howe", "2024-10-05T15:30:00Z"], ["Australia/Lord_Howe", "2024-04-06T15:00:00Z"],
  ["Africa/Casablanca", "2024-03-10T02:00:00Z"], ["Africa/Casablanca", "2024-04-14T02:00:00Z"],
  ["America/Sao_Paulo", "2018-11-04T03:00:00Z"], ["America/Sao_Paulo", "2018-02-18T02:00:00Z"],
  ["America/Havana", "2015-11-01T05:00:00Z"], ["Europe/Dublin", "2024-10-27T01:00:00Z"],
  ["Pacific/Apia", "2011-12-30T10:00:00Z"],
];
const AROUND_S = [-26 * 3600, -3600, -900.5, -1, 0, 1800];
const AT_CHANGES = [
  "30 * * * *", "*/20 * * * *", "0 0 * * *", "30 0 * * *", "30 1 * * *", "30 2 * * *", "30 3 * * *", "15 1-3 * * *",
  "*/20 2 * * *", "0 */2 * * *", "0 30 2,5 * * *", "*/30 59 1 * * *", "30 23,0 * * *", "30 2 L * *", "30 2 * * 0",
];

function next(pattern, currentDate, tz) {
  return CronExpressionParser.parse(pattern, { currentDate, tz }).next().getTime();
}

function fires(pattern, tz, moment) {
  try {
    CronExpressionParser.parse(pattern, { currentDate: moment, tz });
  } catch {
    return "refused";
  }
  const found = [];
  let after = moment;
  while (found.length < 3) {
    let fire = null;
    try {
      fire = next(pattern, after, tz);
    } catch {}
    if (fire === null || fire <= after) {
      return found.length === 0 && neverFires(pattern) ? "refused" : [...found, null];
    }
    found.push(fire);
    after = fire;
  }
  return found;
}

// Apart from any change of clocks, giving up means that there is no such day.
function neverFires(pattern) {
  try {
    next(pattern, Date.UTC(2024, 0, 15), "UTC");
    return false;
  } catch {
    return true;
  }
}

const table = {};
for (const [group, [zones, moments, patterns]] of Object.entries(GROUPS)) {
  table[group] = patterns.flatMap((pattern) => zones.flatMap((zone) => moments.map((moment) => [pattern, zone, moment])));
}
for (const [zone, change] of CHANGES) {
  table[`${zone} ${change}`] = AT_CHANGES.flatMap((pattern) => AROUND_S.map((seconds) =>
    [pattern, zone, new Date(Date.parse(change) + seconds * 1000).toISOString()]));
}
const groups = Object.entries(table).map(([group, rows]) => {
  const lines = rows.map(([pattern, zone, moment]) =>
    JSON.stringify([pattern, zone, moment, fires(pattern, zone, Date.parse(moment))]));
  return `${JSON.stringify(group)}: [\n${lines.join(",\n")}\n]`;
});
console.log(`{\n${groups.join(",\n")}\n}`);
