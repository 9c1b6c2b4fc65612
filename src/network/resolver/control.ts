/**
 * What daemon and resolver say to each other: one JSON object a line over a unix socket in the state directory, which
 * only its owner may open. The state itself goes by files beside it, so that there is one truth.
 */
export const controlVersion = 4

export const resolverFiles = {
  state: 'resolver.json',
  socket: 'resolver.sock',
  pid: 'resolver.pid',
  log: 'resolver.log',
} as const

/** `load`: read the state's files again. Each is answered by one `ResolverStatus`. */
export interface ControlRequest {
  readonly command: 'load' | 'status' | 'stop'
}

export interface ResolverStatus {
  readonly version: number
  readonly pid: number
  readonly listening: readonly string[]
  /** Why, by gateway it can't listen on. */
  readonly failures: Readonly<Record<string, string>>
  /** Why the state could not be read. */
  readonly error?: string
}

export function parseRequest(line: string): ControlRequest | undefined {
  const parsed = parseObject(line)
  const command = parsed?.['command']
  return command === 'load' || command === 'status' || command === 'stop' ? { command } : undefined
}

export function parseStatus(line: string): ResolverStatus | undefined {
  const parsed = parseObject(line)
  const { version, pid, listening, failures, error } = parsed ?? {}
  if (typeof version !== 'number' || typeof pid !== 'number' || !Array.isArray(listening)) {
    return undefined
  }
  const reasons = typeof failures === 'object' && failures !== null ? Object.entries(failures) : []
  return {
    version,
    pid,
    listening: listening.map(String),
    failures: Object.fromEntries(reasons.map(([gateway, why]) => [gateway, String(why)])),
    ...(typeof error === 'string' ? { error } : {}),
  }
}

function parseObject(line: string): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(line)
    return typeof parsed === 'object' && parsed !== null ? { ...parsed } : undefined
  } catch {
    return undefined
  }
}
