/** Options of the engine, to be set before the first `cluster.fork()`. The environment's `PHALANX_…` set them too. */
export interface Options {
  /** Name of the app for `phalanx status`, `reload` and the other commands. Without one it has no control socket. */
  name?: string;
  /** Who chooses the worker for a connection. Default: what `cluster.schedulingPolicy` says. */
  policy?: 'round-robin' | 'weighted' | 'least-connections' | 'fastest' | 'power-of-two' | 'source-hash' | 'random' | 'none';
  /** Weights by position, for the policy `weighted`: `'3,1'`. */
  weights?: string;
  /** How connections reach the workers. Default `auto`. */
  dispatch?: 'auto' | 'kernel' | 'handoff' | 'shared';
  /** Who opens what workers listen on. Default `engine`, or `primary` where this program has replaced `net.Server.prototype.listen`. */
  listen?: 'engine' | 'primary';
  /** How long workers are told they may take to leave: milliseconds, or a time like `'30s'`. */
  drainTimeout?: number | string;
  /** The program, where it is not the one of the package for this platform. */
  binary?: string;
}

/** Sets options of the engine. */
export function configure(options: Options): void;

export interface RollingRestartOptions {
  /** How many workers are replaced at the same time. Default 1. */
  maxSurge?: number;
  /** How long a successor may take until it listens, in milliseconds. Default 30000. */
  readyTimeout?: number;
  /** Variables for the successors, as for `cluster.fork(env)`. */
  env?: object;
}

/** Replaces all workers, each successor first. Fails when a successor does; the rest stays as it is then. */
export function rollingRestart(options?: RollingRestartOptions): Promise<void>;

export interface RespawnOptions {
  /** Waiting times in milliseconds: the first (100), the longest (10000), and for how long a worker has to run so that the next one is replaced at once (10000). */
  backoff?: { first?: number; most?: number; stable?: number };
  /** Variables for the successors, as for `cluster.fork(env)`. */
  env?: object;
}

/** Replaces workers that end without having been asked to. Returns what stops that. */
export function respawn(options?: RespawnOptions): () => void;

/** Sends a message to every worker that is connected. Returns how many that were. */
export function broadcast(message: unknown): number;
