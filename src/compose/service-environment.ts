import { messageOf } from '../base/index.ts'
import { parseDotenv } from './dotenv.ts'
import { parseEnvFile } from './env-file.ts'
import type { Environment } from './interpolate.ts'
import type { ServiceModel } from './keys.ts'
import type { Dialect } from './load-options.ts'
import { isMissingFile } from './missing-file.ts'

export interface EnvironmentSources {
  readonly environment: Environment
  readonly readFile: (path: string) => Promise<Buffer>
  readonly dialect?: Dialect
  readonly onMissing?: (name: string) => void
}

/** A file that can't be used, by the key that names it. */
export class EnvFileFault extends Error {
  readonly key: 'env_file' | 'label_file'
  constructor(key: 'env_file' | 'label_file', message: string) {
    super(message)
    this.key = key
  }
}

/**
 * The service with what its `env_file` and `label_file` hold, under its own `environment` and `labels`. A variable without a
 * value takes that of `environment`; one that has none stays `null`. Throws `EnvFileFault`.
 */
export async function withFileEnvironment(
  service: ServiceModel,
  sources: EnvironmentSources,
): Promise<ServiceModel> {
  const { environment, dialect } = sources
  let variables: Record<string, string | null> = {}
  for (const { path, required, format } of service.envFiles ?? []) {
    const text = await readOr('env_file', path, required !== false, sources)
    if (text === undefined) continue
    // The stock CLI reads a stack's env files line by line, quotes and all.
    const isRaw = format === 'raw' || dialect === 'stack'
    const found = isRaw
      ? parseEnvFile(text)
      : parsed('env_file', () => parseDotenv(path, text, environment, sources.onMissing))
    variables = {
      ...variables,
      ...Object.fromEntries(Object.entries(found).map(([key, value]) => [key, value ?? null])),
    }
  }
  const all = Object.entries({ ...variables, ...service.environment })
  let labels: Readonly<Record<string, string>> = {}
  for (const path of service.labelFiles ?? []) {
    const text = await readOr('label_file', path, true, sources)
    labels = {
      ...labels,
      ...parsed('label_file', () => parseDotenv(path, text ?? '', environment)),
    }
  }
  const allLabels = { ...labels, ...service.labels }
  return {
    ...service,
    ...((all.length > 0 || service.environment !== undefined) && {
      environment: Object.fromEntries(
        all.map(([key, value]) => [key, value ?? environment[key] ?? null]),
      ),
    }),
    ...((Object.keys(allLabels).length > 0 || service.labels !== undefined) && {
      labels: allLabels,
    }),
  }
}

function parsed<T>(key: EnvFileFault['key'], read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw new EnvFileFault(key, messageOf(error))
  }
}

async function readOr(
  key: EnvFileFault['key'],
  path: string,
  isRequired: boolean,
  { readFile }: EnvironmentSources,
): Promise<string | undefined> {
  try {
    return (await readFile(path)).toString()
  } catch (error) {
    if (!isRequired && isMissingFile(error)) return undefined
    throw new EnvFileFault(key, `cannot read ${path}: ${messageOf(error)}`)
  }
}
