import type { LogLevel } from './log.ts'

/** Everything a daemon is told at its start, checked by the command line. Frozen. */
export interface DaemonOptions {
  /** State that survives a reboot. Default `/var/lib/skep`. */
  readonly dataRoot: string
  /** State that does not have to: sockets, secrets of tasks (on a tmpfs). Default `/run/skep`. */
  readonly runDir: string
  /** Where the Engine API is served: `unix:///run/skep/docker.sock`, `tcp://0.0.0.0:2376`. At least one. */
  readonly hosts: readonly string[]
  /** PEM files for `tcp://` hosts; clients need a certificate of the CA. Without it tcp is refused. */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  /** Group that may use unix sockets, besides root; ignored where it does not exist. Default `docker`. */
  readonly socketGroup: string
  /** The local engine: `unix:///var/run/docker.sock`. */
  readonly engine: string
  /** Cluster port's default: `0.0.0.0:2377`. `swarm init --listen-addr` goes before it. */
  readonly listenAddress: string
  /** What other nodes reach this one by: `<ip>`, `<ip>:<port>` or `<interface>`; empty: as it was, or is found. */
  readonly advertiseAddress: string
  /** `host:port` of managers to ask beside those that this node knows. */
  readonly managers: readonly string[]
  /** Metrics and health: `127.0.0.1:7780`; empty: off. */
  readonly http: string
  readonly logLevel: LogLevel
}
