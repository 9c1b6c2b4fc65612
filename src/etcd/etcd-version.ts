import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { messageOf, UserError } from '../base/index.ts'

const run = promisify(execFile)
const answerMsMax = 10_000

/** Asks the program for its version, like `3.4.23`. Throws UserError `unsupported` where it can't be used. */
export async function detectEtcdVersion(binary: string): Promise<string> {
  let output: string
  try {
    output = (await run(binary, ['--version'], { timeout: answerMsMax })).stdout
  } catch (cause) {
    throw new UserError('unsupported', `etcd can not be run as ${binary}: ${messageOf(cause)}`, {
      next: 'Several managers need etcd: install it (on Debian: `apt-get install etcd-server`), or name it with --etcd.',
      cause,
    })
  }
  const version = /etcd Version: (\d+\.\d+\.\d+)/.exec(output)?.[1]
  if (version === undefined) {
    throw new UserError('unsupported', `${binary} does not tell its version as etcd does`, {
      next: 'Name the program with --etcd.',
    })
  }
  if (minorOf(version) < 4 || !version.startsWith('3.')) {
    throw new UserError('unsupported', `etcd ${version} can not be used`, {
      next: 'Install etcd 3.4, 3.5 or 3.6.',
    })
  }
  return version
}

/** 4 of `3.4.23`. */
export function minorOf(version: string): number {
  return Number(version.split('.')[1])
}
