import { isAbsolute } from 'node:path'
import { UserError } from '../base/index.ts'
import type { LogLevel } from '../daemon/log.ts'
import type { DaemonOptions } from '../daemon/options.ts'
import { formatEngineAddress, parseEngineAddress } from '../engine/index.ts'

/** The flags of `skep daemon` as Commander collects them; absent where not given. */
export interface DaemonFlags {
  readonly dataRoot?: string
  readonly runDir?: string
  readonly host?: readonly string[]
  readonly tlsCa?: string
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly socketGroup?: string
  readonly engine?: string
  readonly listenAddr?: string
  readonly advertiseAddr?: string
  readonly manager?: readonly string[]
  readonly http?: string
  readonly logLevel?: string
}

/** Longest path of a unix socket Linux takes, in bytes. Source: unix(7), sun_path less its final zero. */
const socketPathBytesMax = 107
const clusterPortDefault = 2377
const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error']

/** Checks the flags and fills in the defaults. Throws `invalidInput`. */
export function parseDaemonFlags(flags: DaemonFlags): DaemonOptions {
  const dataRoot = absolutePath('--data-root', flags.dataRoot ?? '/var/lib/skep')
  const runDir = absolutePath('--run-dir', flags.runDir ?? '/run/skep')
  const given = flags.host ?? []
  const hosts = given.length > 0 ? given : [`unix://${runDir}/docker.sock`]
  for (const host of hosts) checkHost(host)
  const tls = parseTls(flags)
  const open = hosts.find((host) => host.startsWith('tcp:'))
  if (open !== undefined && tls === undefined) {
    throw new UserError('invalidInput', `-H ${open} would be open to everyone`, {
      next: 'Add --tls-ca, --tls-cert and --tls-key, so that only clients with a certificate get in.',
    })
  }
  const engine = formatEngineAddress(
    parseEngineAddress(flags.engine ?? 'unix:///var/run/docker.sock'),
  )
  if (hosts.includes(engine)) {
    throw new UserError('invalidInput', `-H and --engine are both ${engine}`, {
      next: 'Give Skep a socket of its own with -H unix:///run/skep/docker.sock.',
    })
  }
  return Object.freeze({
    dataRoot,
    runDir,
    hosts: Object.freeze([...new Set(hosts)]),
    ...(tls && { tls: Object.freeze(tls) }),
    socketGroup: flags.socketGroup ?? 'docker',
    engine,
    listenAddress: hostPort('--listen-addr', flags.listenAddr ?? '0.0.0.0:2377'),
    advertiseAddress: (flags.advertiseAddr ?? '').trim(),
    managers: Object.freeze(
      (flags.manager ?? []).map((text) =>
        hostPort('--manager', /:\d+$/.test(text) ? text : `${text}:${clusterPortDefault}`),
      ),
    ),
    http: flags.http === '' ? '' : hostPort('--http', flags.http ?? '127.0.0.1:7780'),
    logLevel: parseLogLevel(flags.logLevel ?? 'info'),
  })
}

function absolutePath(name: string, path: string): string {
  if (!isAbsolute(path)) {
    throw new UserError('invalidInput', `${name} ${path} is not an absolute path`, {
      next: 'Write it from the root, as /var/lib/skep.',
    })
  }
  return path.length > 1 ? path.replace(/\/+$/, '') : path
}

function checkHost(host: string): void {
  const unix = /^unix:\/\/(\/.+)$/.exec(host)?.[1]
  if (unix !== undefined) {
    if (Buffer.byteLength(unix) <= socketPathBytesMax) return
    throw new UserError(
      'invalidInput',
      `the socket path ${unix} is over ${socketPathBytesMax} bytes`,
      {
        next: 'Name a shorter one with -H unix:///…',
      },
    )
  }
  const tcp = /^tcp:\/\/(.+)$/.exec(host)?.[1]
  if (tcp !== undefined) {
    hostPort('-H', tcp)
    return
  }
  throw new UserError('invalidInput', `-H ${host} is no address to listen on`, {
    next: 'Write it as unix:///run/skep/docker.sock or tcp://0.0.0.0:2376.',
  })
}

function parseTls({ tlsCa, tlsCert, tlsKey }: DaemonFlags): DaemonOptions['tls'] {
  if (tlsCa === undefined && tlsCert === undefined && tlsKey === undefined) return undefined
  if (tlsCa === undefined || tlsCert === undefined || tlsKey === undefined) {
    const missing = [
      tlsCa === undefined && '--tls-ca',
      tlsCert === undefined && '--tls-cert',
      tlsKey === undefined && '--tls-key',
    ].filter((name) => name !== false)
    throw new UserError('invalidInput', `TLS needs ${missing.join(' and ')} as well`, {
      next: 'Give all three of --tls-ca, --tls-cert and --tls-key, or none.',
    })
  }
  return {
    ca: absolutePath('--tls-ca', tlsCa),
    cert: absolutePath('--tls-cert', tlsCert),
    key: absolutePath('--tls-key', tlsKey),
  }
}

/** `192.0.2.1:2377`, `[::1]:2377` or a host's name and port. Port 0 lets the kernel choose. */
function hostPort(name: string, text: string): string {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:/[\]\s]+):(\d{1,5})$/.exec(text)
  if (match && Number(match[2]) < 65_536) return text
  throw new UserError('invalidInput', `${name} "${text}" is not host:port`, {
    next: 'Write it as 127.0.0.1:2377 or [::1]:2377.',
  })
}

function parseLogLevel(text: string): LogLevel {
  const level = logLevels.find((one) => one === text)
  if (level !== undefined) return level
  throw new UserError('invalidInput', `--log-level ${text} is unknown`, {
    next: `Choose one of ${logLevels.join(', ')}.`,
  })
}
