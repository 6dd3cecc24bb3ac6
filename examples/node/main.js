// The server on every core: workers, a broadcast, respawn after a crash, and a restart one by one on SIGUSR2. Nothing
// here knows of phalanx.
'use strict';

const cluster = require('cluster');
const { availableParallelism, cpus } = require('os');

if (cluster.isPrimary) {
  const count = Number(process.env.WORKERS ?? availableParallelism?.() ?? cpus().length);
  console.log(`Primary ${process.pid} forks ${count} workers`);
  for (let i = 0; i < count; i++) cluster.fork();

  // A broadcast, every ten seconds.
  setInterval(() => {
    const workers = Object.values(cluster.workers);
    workers.forEach((worker) => worker.send({ workers: workers.length }));
  }, 10_000);

  // Whoever crashes is replaced.
  cluster.on('exit', (worker, code, signal) => {
    if (worker.exitedAfterDisconnect) return;
    console.log(`Worker ${worker.id} crashed (${signal ?? code}): another one starts`);
    cluster.fork();
  });

  // `kill -USR2`: one after the other leaves, and its successor is waited for.
  process.on('SIGUSR2', () => {
    const workers = Object.values(cluster.workers);
    const restart = () => {
      const worker = workers.shift();
      if (!worker) return;
      worker.once('exit', () => {
        if (!worker.exitedAfterDisconnect) return;
        cluster.fork().once('listening', restart);
      });
      worker.disconnect();
    };
    restart();
  });
} else {
  require('./server.js');
}
