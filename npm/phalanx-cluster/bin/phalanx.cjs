#!/usr/bin/env node
// The command: becomes the program where Node can (22.15), and else stands before it.
'use strict';

const { spawn } = require('child_process');
const { constants } = require('os');
const { binary } = require('../lib/binary.cjs');

function stand(program, args) {
  const child = spawn(program, args, { stdio: 'inherit' });
  const signals = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM', 'SIGUSR2', 'SIGTTIN', 'SIGTTOU', 'SIGPWR'];
  for (const signal of signals) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => { process.exitCode = code ?? 128 + constants.signals[signal]; });
}

try {
  const [program, args] = [binary(), process.argv.slice(2)];
  if (typeof process.execve === 'function') process.execve(program, [program, ...args], process.env);
  else stand(program, args);
} catch (error) {
  process.stderr.write(`phalanx: ${error.message}\n`);
  process.exitCode = 1;
}
