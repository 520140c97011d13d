// Which curves go on which chart: recovery, teachers, students.
import { byId, getJson, make } from "./dom.js";
import { Chart } from "./charts.js";

const SUBJECTS = {
  distilled: { title: "distilled", colour: "--distilled", width: 2.25 },
  rded: { title: "RDED", colour: "--rded" },
  patches: { title: "patches", colour: "--patches" },
  random: { title: "random real", colour: "--random" },
  herding: { title: "herding", colour: "--ink-2" },
};
const DENSITY = [{ name: "recover.entropy", title: "Entropy of the teacher's answer, bits", colour: "--distilled", width: 2, marked: true }];
const WORDS = { "the distilled images": "distilled", "RDED's patches": "rded", "the source patches": "patches", "random real images": "random", "images chosen by herding": "herding" };
const RECOVER = [
  { name: "recover.loss", title: "Total", colour: "--ink", width: 2, marked: true },
  { name: "recover.loss_ce", title: "Cross-entropy", colour: "--distilled" },
  { name: "recover.loss_bn", title: "Batch norm, unweighted", colour: "--rded", dash: [6, 3] },
];
const TEACHER_DASHES = [undefined, [6, 3], [2, 3], [8, 3, 2, 3]];

/** A select that is only there when there is something to choose. */
function chooser(select, action) {
  select.addEventListener("change", () => action(select.value));
  return {
    fill(options, value) {
      if (select.options.length !== options.length) {
        select.replaceChildren(...options.map(([key, title]) => make("option", { value: key, text: title })));
      }
      select.hidden = options.length < 2;
      if (value !== undefined) select.value = value;
    },
  };
}

export class Curves {
  constructor(base, { iterations, teacherEpochs, epochs }) {
    this.base = base;
    this.steps = new Map(); // key -> {kind, title, series: Map name -> points, marks: Map}
    this.runs = new Map(); // key of an evaluate step -> {subject, student, labels}
    this.students = [];
    this.shard = null;
    this.student = null;
    this.recover = new Chart("chart-recover", { x: "iteration", log: true, upTo: iterations, clocks: () => this.#clocks() });
    this.density = byId("chart-density") && new Chart("chart-density", { x: "iteration", upTo: iterations });
    this.continual = byId("chart-continual") && new Chart("chart-continual", { x: "classes" });
    this.density?.show(DENSITY);
    this.teacher = new Chart("chart-teacher", { x: "epoch", shiftX: 1, upTo: teacherEpochs, clocks: () => this.#clocks() });
    this.accuracy = new Chart("chart-students", { x: "epoch", shiftX: 1, upTo: epochs });
    this.shards = chooser(byId("chart-recover-of"), (key) => this.#chooseShard(key));
    this.whose = chooser(byId("chart-students-of"), (student) => this.#chooseStudent(student));
    this.recover.show(RECOVER);
  }

  async load() {
    const [metrics, results] = await Promise.all([getJson(`${this.base}/metrics?max_points=1000`), getJson(`${this.base}/results`)]);
    this.#know(results);
    for (const step of metrics.data) {
      this.step(step.key, step.kind, step.title);
      this.add(step.key, step.series);
      for (const mark of step.marks) this.mark(step.key, mark);
    }
    return metrics.last_seq;
  }

  /** The score card says what each evaluate step judges, and how good the teachers are. */
  #know(results) {
    for (const row of results.rows) for (const run of row.runs) this.runs.set(run.key, row);
    this.students = [...new Set(results.rows.map((row) => row.student))];
    this.student ??= this.students[0] ?? null;
    this.whose.fill(this.students.map((name) => [name, name]), this.student);
    const tops = results.teachers.map((teacher) => teacher.top1_pct).filter((value) => value !== null);
    const levels = tops.length ? [{ value: Math.max(...tops), scale: "pct", title: `teacher ${Math.max(...tops).toFixed(1)}` }] : [];
    this.accuracy.level(levels);
  }

  /** When points came, by the names that curves have on the charts of recovery and of teachers. */
  async #clocks() {
    const { data } = await getJson(`${this.base}/metrics?clocks=true&max_points=10`);
    const found = new Map();
    for (const { key, clock, series } of data) {
      if (key === this.shard) for (const name of Object.keys(series)) found.set(name, clock);
      for (const name of ["loss", "top1"]) found.set(`${key} ${name}`, clock);
    }
    return found;
  }

  async refreshResults() {
    this.#know(await getJson(`${this.base}/results`));
    this.#showStudents();
  }

  step(key, kind, title) {
    if (!this.steps.has(key)) this.steps.set(key, { kind, title, series: new Map(), marks: new Map() });
  }

  add(key, points) {
    const step = this.steps.get(key);
    if (!step) return;
    for (const [name, values] of Object.entries(points)) {
      const known = step.series.get(name) ?? new Map();
      step.series.set(name, known);
      for (const [x, value] of values) known.set(x, value);
    }
    if (step.kind === "recover") this.#showShard(key, points);
    if (step.kind === "teach") this.#showTeachers();
    if (step.kind === "evaluate") this.#showStudents();
    if (step.kind === "continual") this.#showContinual();
  }

  mark(key, mark) {
    this.steps.get(key)?.marks.set(mark.x, mark);
    if (key === this.shard) for (const chart of this.#ofShard()) chart.mark(mark.x, mark);
  }

  #showShard(key, points) {
    const shards = this.#of("recover");
    this.shard ??= key;
    this.shards.fill(shards.map(([id, step]) => [id, step.title]), this.shard);
    if (key === this.shard) for (const chart of this.#ofShard()) for (const [name, values] of Object.entries(points)) chart.add(name, values);
  }

  /** The charts of recovery show one step of it at a time. */
  #ofShard() {
    return [this.recover, this.density].filter(Boolean);
  }

  #chooseShard(key) {
    this.shard = key;
    const step = this.steps.get(key);
    for (const chart of this.#ofShard()) {
      chart.clear();
      for (const [name, values] of step.series) chart.add(name, [...values]);
      for (const [x, mark] of step.marks) chart.mark(x, mark);
    }
  }

  #of(kind) {
    return [...this.steps].filter(([, step]) => step.kind === kind && step.series.size);
  }

  #showTeachers() {
    const curves = [];
    for (const [index, [key, step]] of this.#of("teach").entries()) {
      const whose = index || this.#of("teach").length > 1 ? ` ${index + 1}` : "";
      const dash = TEACHER_DASHES[index % TEACHER_DASHES.length];
      curves.push({ name: `${key} loss`, title: `Loss${whose}`, colour: "--rded", dash });
      curves.push({ name: `${key} top1`, title: `Accuracy${whose}, %`, colour: "--distilled", dash, scale: "pct" });
      this.teacher.add(`${key} loss`, [...(step.series.get("teach.loss") ?? [])]);
      this.teacher.add(`${key} top1`, [...(step.series.get("teach.top1") ?? [])]);
    }
    this.teacher.show(curves);
  }

  /** One curve a subject and number of groups: the mean over the runs, at each number of classes. */
  #showContinual() {
    const rows = new Map();
    for (const [, step] of this.#of("continual")) {
      const [, words, groups] = /^Learn (.*) in (\d+) groups/.exec(step.title) ?? [null, "", ""];
      const name = `${words} ${groups}`;
      if (!rows.has(name)) rows.set(name, { subject: SUBJECTS[WORDS[words]] ?? SUBJECTS.random, groups, all: [] });
      rows.get(name).all.push(step.series.get("continual.top1") ?? new Map());
    }
    const dashes = [...new Set([...rows.values()].map((row) => row.groups))];
    this.continual?.show([...rows].map(([name, { subject, groups }]) => ({
      ...subject,
      name,
      title: `${subject.title}, ${groups} groups`,
      dash: TEACHER_DASHES[dashes.indexOf(groups) % TEACHER_DASHES.length],
      scale: "pct",
    })));
    for (const [name, { all }] of rows) this.continual?.add(name, means(all));
  }

  #chooseStudent(student) {
    this.student = student;
    this.accuracy.clear();
    this.#showStudents();
  }

  /** One curve a subject and kind of labels: the mean over the runs that have come so far at each epoch. */
  #showStudents() {
    const rows = new Map();
    for (const [key, step] of this.#of("evaluate")) {
      const row = this.runs.get(key);
      if (!row || row.student !== this.student) continue;
      const name = `${row.subject} ${row.labels} ${row.ipc}`;
      if (!rows.has(name)) rows.set(name, { row, all: [] });
      rows.get(name).all.push(step.series.get("evaluate.top1") ?? new Map());
    }
    const order = [...rows].sort(([, a], [, b]) => Number(a.row.subject === "distilled") - Number(b.row.subject === "distilled"));
    const both = new Set(order.map(([, { row }]) => row.labels)).size > 1;
    const ipcs = [...new Set(order.map(([, { row }]) => row.ipc))];
    this.accuracy.show(order.map(([name, { row }]) => ({
      ...SUBJECTS[row.subject],
      name,
      title: [SUBJECTS[row.subject].title, ...(both ? [row.labels] : []), ...(ipcs.length > 1 ? [`ipc ${row.ipc}`] : [])].join(", "),
      dash: ipcs.indexOf(row.ipc) > 0 ? TEACHER_DASHES[ipcs.indexOf(row.ipc) % 4] : row.labels === "hard" ? [5, 3] : undefined,
      scale: "pct",
    })));
    for (const [name, { all }] of order) this.accuracy.add(name, means(all));
  }
}

function means(runs) {
  const sums = new Map();
  for (const run of runs) {
    for (const [x, value] of run) {
      const [sum, count] = sums.get(x) ?? [0, 0];
      sums.set(x, [sum + value, count + 1]);
    }
  }
  return [...sums].map(([x, [sum, count]]) => [x, sum / count]);
}
