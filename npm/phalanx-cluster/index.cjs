// What a program may say to phalanx. It need not say anything.
'use strict';

const engine = require('./lib/engine.cjs');
const { broadcast, respawn, rollingRestart } = require('./lib/recipes.cjs');
const { register } = require('./lib/splice.cjs');

register();

const OPTIONS = { name: 'name', policy: 'policy', weights: 'weights', dispatch: 'dispatch', listen: 'listen', drainTimeout: 'drain-timeout' };

/** Sets options of the engine. Takes effect before the first worker. */
function configure(options) {
  for (const [name, value] of Object.entries(options)) {
    if (name === 'binary') process.env.PHALANX_BINARY = value;
    else if (!OPTIONS[name]) throw new TypeError(`phalanx-cluster has no option ${name}: it has ${Object.keys(OPTIONS).join(', ')}, binary`);
    else engine.settings[OPTIONS[name]] = typeof value === 'number' && name === 'drainTimeout' ? `${value}ms` : value;
  }
}

module.exports = { broadcast, configure, respawn, rollingRestart };
