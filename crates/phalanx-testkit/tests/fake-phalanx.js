#!/usr/bin/env node
// Stands in for the phalanx binary: enough of `run`, of the socket and of a verb to test the kit.
'use strict';
const { spawn } = require('child_process');
const fs = require('fs');
const http = require('http');
const path = require('path');
const readline = require('readline');

const [verb, nameOption, name, ...rest] = process.argv.slice(2);
if (nameOption !== '--name') throw new Error('--name comes first');
if (verb !== 'run') {
  console.log(JSON.stringify({ verb, name, rest }));
  process.exit(verb === 'fail' ? 1 : 0);
}

const worker = spawn('tail', ['-f', '/dev/null'], { detached: true, stdio: 'ignore' });
let state = 'starting';
const streams = [];

const server = http.createServer((request, response) => {
  if (request.url === '/v1/events') {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.flushHeaders();
    streams.push(response);
    return;
  }
  if (request.method === 'POST') {
    let body = '';
    request.on('data', (part) => (body += part));
    request.on('end', () => {
      state = 'ready';
      streams.forEach((stream) => stream.write(`data: {"event":"ready","body":${body}}\n\n`));
      response.end(JSON.stringify({ done: true }));
    });
    return;
  }
  const workers = [{ id: 1, position: 0, pid: worker.pid, state }];
  const listeners = ['udp:127.0.0.1:5', '127.0.0.1:4'].map((address) => ({ address }));
  response.end(JSON.stringify({ name, target: 1, listeners, workers }));
});
const directory = path.join(process.env.XDG_RUNTIME_DIR, 'phalanx');
fs.mkdirSync(directory);
server.listen(path.join(directory, `${name}.sock`), () => console.log('started', rest.join(' ')));
readline.createInterface({ input: process.stdin }).on('line', (line) => console.log('heard', line));
process.on('SIGTERM', () => {
  if (process.env.ORPHAN !== '1') worker.kill();
  process.exit(0);
});
