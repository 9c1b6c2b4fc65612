import { type ErrorCode, messageOf, UserError } from '../base/index.ts'

/** What the engine's status means to a caller. */
export function codeOfStatus(status: number): ErrorCode {
  if (status === 404) return 'notFound'
  if (status === 409) return 'conflict'
  if (status === 401 || status === 403) return 'forbidden'
  if (status === 501) return 'unsupported'
  if (status === 503) return 'unavailable'
  return status < 500 ? 'invalidInput' : 'internal'
}

/** The engine's own sentence out of an error body; older routes answer plain text. */
export function messageOfBody(status: number, body: string): string {
  try {
    const parsed: unknown = JSON.parse(body)
    if (typeof parsed === 'object' && parsed !== null && 'message' in parsed) {
      return String(parsed.message).trim()
    }
  } catch {
    // Not JSON: the text itself is the message.
  }
  return body.trim() || `the engine answered ${status}`
}

const gone: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ENOENT',
  'EPIPE',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ETIMEDOUT',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAGAIN',
  'ERR_STREAM_PREMATURE_CLOSE',
  'HPE_INVALID_EOF_STATE',
])

/** A failed connection as a UserError; an abort and errors that are already ours pass unchanged. */
export function connectionError(where: string, error: unknown): unknown {
  if (error instanceof UserError) return error
  if (error instanceof Error && error.name === 'AbortError') return error
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  if (code === 'EACCES') {
    return new UserError('forbidden', `may not open the Docker Engine's socket ${where}`, {
      next: 'Run as root, or as a member of the group that owns the socket.',
      cause: error,
    })
  }
  if (gone.has(code)) {
    return new UserError('unavailable', `the Docker Engine at ${where} does not answer (${code})`, {
      next: 'Start it (systemctl start docker), or name another one with --engine.',
      cause: error,
    })
  }
  return new UserError('internal', `talking to the Docker Engine failed: ${messageOf(error)}`, {
    cause: error,
  })
}
