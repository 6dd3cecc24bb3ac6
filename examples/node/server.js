// A server that is busy for a moment with every request, and tells who answers.
'use strict';

const http = require('http');

const port = Number(process.env.PORT ?? 3000);

http.createServer((request, response) => {
  let sum = 0;
  for (let i = 0; i < 1e6; i++) sum += i;
  response.end(`Handled by process ${process.pid}\n`);
}).listen(port, () => console.log(`Started process ${process.pid}`));

process.on('message', (message) => console.log(`Process ${process.pid} was told: ${JSON.stringify(message)}`));
