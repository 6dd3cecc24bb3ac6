// The same by the recipes of phalanx-cluster: each successor starts before its predecessor leaves.
//
//     npm install phalanx-cluster && node primary.js
'use strict';

const { broadcast, configure, respawn, rollingRestart } = require('phalanx-cluster');
const cluster = require('cluster');
const { availableParallelism, cpus } = require('os');

if (cluster.isPrimary) {
  configure({ name: 'example' });
  respawn();
  const count = Number(process.env.WORKERS ?? availableParallelism?.() ?? cpus().length);
  for (let i = 0; i < count; i++) cluster.fork();
  setInterval(() => broadcast({ workers: count }), 10_000);
  process.on('SIGUSR2', () => {
    rollingRestart().catch((error) => console.error(`The restart failed: ${error.message}`));
  });
} else {
  require('./server.js');
}
