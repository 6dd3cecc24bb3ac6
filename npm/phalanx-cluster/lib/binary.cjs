// Where the program is: one file, in the package for this platform.
'use strict';

const { accessSync, constants } = require('fs');

/** Throws when there is none, with the reason in one line. */
function binary() {
  const named = process.env.PHALANX_BINARY;
  if (named) return executable(named);
  const name = `@phalanx-rs/${process.platform}-${process.arch}`;
  let path;
  try {
    path = require.resolve(`${name}/bin/phalanx`);
  } catch {
    throw new Error(`there is no program for ${process.platform} on ${process.arch}: ${name} is not installed`);
  }
  return executable(path);
}

function executable(path) {
  try {
    accessSync(path, constants.X_OK);
    return path;
  } catch (error) {
    throw new Error(`${path} cannot be executed (${error.code})`);
  }
}

module.exports = { binary };
