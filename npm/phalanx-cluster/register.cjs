// Has phalanx take the connections of this program's cluster: loaded by `--require` or `--import`, before `cluster` is.
'use strict';

require('./lib/splice.cjs').register();
