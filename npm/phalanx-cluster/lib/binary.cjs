// Where the program is: one file, in the package for this platform.
'use strict';

const { spawnSync } = require('child_process');
const { accessSync, constants } = require('fs');
const { version } = require('../package.json');

/** How long a program may take to say which it is. */
const VERSION_MS = 20_000;

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

/**
 * The program, when it runs here and is of this package's version: what the two say to each other is theirs alone.
 * Throws as `binary` does.
 */
function fitting() {
  const program = binary();
  const { error, signal, status, stdout } = spawnSync(program, ['--version'], {
    encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: VERSION_MS,
  });
  if (error || signal || status !== 0) {
    throw new Error(`${program} cannot be executed (${error?.code ?? signal ?? status})`);
  }
  const [said] = stdout.split('\n');
  if (said !== `phalanx ${version}`) {
    throw new Error(`${program} is ${said || 'of no version'}, and this package is phalanx-cluster ${version}: install both in one version`);
  }
  return program;
}

module.exports = { binary, fitting };
