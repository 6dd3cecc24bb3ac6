// Node's `cluster`, with phalanx registered before it is loaded.
'use strict';

require('./register.cjs');
module.exports = require('node:cluster');
