import type { Environment } from './interpolate.ts'

/** Who the files are for: one engine, or a cluster's stack. They differ in what they honour and in some merging. */
export type Dialect = 'compose' | 'stack'

/** What `loadProject` is given. Paths are absolute or relative to `directory`. */
export interface LoadOptions {
  /** Where the command was given; absolute. */
  readonly directory: string
  /** The shell's variables. */
  readonly environment: Environment
  /** Rejects with the code `ENOENT` where there is no file. */
  readonly readFile: (path: string) => Promise<Buffer>
  /** Hears of what has no effect and of variables that are not set, each once. */
  readonly warn: (text: string) => void
  /** Absent: compose. */
  readonly dialect?: Dialect
  /** `-f`, later ones over earlier ones; `-` is standard input. Absent: `COMPOSE_FILE`, else the usual names in `directory` and above. */
  readonly files?: readonly string[]
  /** `-p`. Absent: `COMPOSE_PROJECT_NAME`, else the files' `name`, else the directory's. */
  readonly projectName?: string
  /** `--project-directory`. Absent: that of the first file. */
  readonly projectDirectory?: string
  /** `--env-file`, later ones over earlier ones. Absent: `COMPOSE_ENV_FILES`, else `.env` in the project's directory. */
  readonly envFiles?: readonly string[]
  /** `--profile`, beside `COMPOSE_PROFILES`; `*` is all of them. */
  readonly profiles?: readonly string[]
  /** Named on the command line: active whatever their profiles are, as is what they depend on. */
  readonly services?: readonly string[]
}
