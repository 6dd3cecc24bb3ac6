// What is known of the app, from its status, its metrics and its events. No DOM here.

const SAMPLES = 120;
const LINES = 300;
const SHOWN_MS = 15_000;

/** What other processes chose, in one line and without what would turn text around. */
export const plain = (text) =>
  String(text ?? "").replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, (letter) =>
    `\\u{${letter.codePointAt(0).toString(16)}}`);

export class State {
  status = null;
  metrics = null;
  at = 0;
  rows = [];
  total = { rate: null, isRequests: false, trend: [] };
  trends = new Map();
  log = [];
  rollout = null;
  why = new Map();

  take(status, metrics, now) {
    const seconds = Math.max((now - this.at) / 1000, 0.001);
    const before = this.status;
    const figures = new Map((metrics?.positions ?? []).map((one) => [one.position, one]));
    this.total.isRequests = [...figures.values()].some((one) => one.requests_per_second != null);
    const rates = new Map();
    for (const worker of status.workers) {
      const known = figures.get(worker.position);
      const rate = known?.requests_per_second ?? known?.connections_per_second;
      if (rate != null) rates.set(worker.position, rate);
      else if (before && worker.connections != null) {
        const same = before.workers.find((one) => one.id === worker.id);
        const more = Math.max(worker.connections - (same?.connections ?? 0), 0) / seconds;
        rates.set(worker.position, (rates.get(worker.position) ?? 0) + more);
      }
    }
    for (const [position, rate] of rates) this.push(position, rate);
    for (const position of this.trends.keys()) if (!rates.has(position)) this.trends.delete(position);
    if (rates.size > 0) {
      this.total.rate = [...rates.values()].reduce((sum, rate) => sum + rate, 0);
      this.total.trend = [...this.total.trend, this.total.rate].slice(-SAMPLES);
    }
    Object.assign(this, { status, metrics, at: now });
    this.rows = this.rowsOf(status, figures, rates);
    if (!status.reloading && this.rollout && this.rollout.over === null) this.rollout = null;
    if (this.rollout?.over != null && now - this.rollout.over > SHOWN_MS) this.rollout = null;
  }

  push(position, rate) {
    this.trends.set(position, [...(this.trends.get(position) ?? []), rate].slice(-SAMPLES));
  }

  rowsOf(status, figures, rates) {
    const generations = status.workers.map((worker) => worker.generation);
    const [oldest, latest] = [Math.min(...generations), Math.max(...generations)];
    const newest = new Map();
    for (const worker of status.workers) newest.set(worker.position, worker.id);
    const workers = status.workers.map((worker) => {
      const known = figures.get(worker.position);
      const isNewest = known?.worker === worker.id || newest.get(worker.position) === worker.id;
      const theirs = isNewest ? known : undefined;
      return {
        key: `w${worker.id}`,
        worker,
        position: worker.position,
        state: plain(worker.health ?? (worker.stuck_ms != null ? "stuck" : worker.state)),
        isNew: status.reloading && oldest < latest && worker.generation === latest,
        rate: isNewest ? rates.get(worker.position) ?? null : null,
        trend: isNewest ? this.trends.get(worker.position) ?? [] : [],
        share: worker.share ?? null,
        p50: theirs?.p50_us ?? null,
        p99: theirs?.p99_us ?? worker.response_us ?? null,
        lag: worker.loop_lag_us ?? theirs?.loop_lag_us ?? null,
        cpu: theirs?.cpu ?? null,
        memory: worker.memory_bytes ?? null,
        restarts: worker.restarts,
        why: plain(worker.health_why ?? this.why.get(worker.position) ?? worker.recycled?.why ?? ""),
        says: plain(worker.says ?? ""),
      };
    });
    const vacancies = (status.vacancies ?? []).map((vacancy) => ({
      key: `v${vacancy.position}`,
      worker: null,
      position: vacancy.position,
      state: vacancy.crash_loop ? "crashing" : "vacant",
      trend: [],
      restarts: vacancy.restarts,
      why: vacancy.retry_in_ms == null ? "no try is due" : `next try in ${(vacancy.retry_in_ms / 1000).toFixed(1)} s`,
    }));
    return [...workers, ...vacancies].sort((one, other) => one.position - other.position);
  }

  /** Takes an event; says whether it is worth a line. */
  hear(event, now) {
    this.follow(event, now);
    if (event.report === "changed" && ["crashed", "failed_to_start", "not_ready_in_time", "own_wish"].includes(event.reason?.why)) {
      this.why.set(event.position, event.text);
    }
    if (!event.text || event.level === "trace") return null;
    const line = { time: event.time, level: event.level, text: plain(event.text) };
    this.log = [line, ...this.log].slice(0, LINES);
    return line;
  }

  follow(event, now) {
    const begun = () => ({ generation: event.generation, stage: "replacing", done: 0, of: 0, sides: null, over: null, isWell: true });
    const rollout = this.rollout ?? begun();
    const next = {
      rollout_started: () => ({ ...begun(), of: event.workers }),
      canary_started: () => ({ ...rollout, stage: "watching", elapsed: 0, watch: event.watch_ms }),
      canary_progress: () => ({
        ...rollout, stage: "watching", elapsed: event.elapsed_ms, watch: event.watch_ms, sides: [event.canary, event.others],
      }),
      canary_passed: () => ({ ...rollout, stage: "replacing", sides: [event.canary, event.others] }),
      rollout_progress: () => ({ ...rollout, done: event.done, of: event.workers }),
      rollout_failed: () => ({ ...rollout, stage: "going back" }),
      rollout_cancelled: () => ({ ...rollout, stage: "going back" }),
      rollout_finished: () => ({ ...rollout, done: rollout.of, over: now, isWell: true }),
      rolled_back: () => ({ ...rollout, generation: event.generation, over: now, isWell: false }),
      rollback_abandoned: () => ({ ...rollout, over: now, isWell: false }),
    }[event.report];
    if (next) this.rollout = next();
  }
}
