import { type ErrorCode, messageOf, UserError } from '../../base/index.ts'

/** Which HTTP status a failure is answered with. Source: Docker Engine API 1.41 to 1.50 in swarm mode. */
const statusByCode = {
  invalidInput: 400,
  notFound: 404,
  ambiguous: 400,
  conflict: 409,
  outOfSequence: 500,
  inUse: 400,
  notManager: 503,
  alreadyInCluster: 503,
  notInCluster: 503,
  locked: 503,
  failedPrecondition: 400,
  forbidden: 403,
  unsupported: 501,
  unavailable: 503,
  tooLarge: 413,
  internal: 500,
} satisfies Record<ErrorCode, number>

/** A refusal whose status is not that of its kind, because clients know it by this one. */
export class DockerError extends Error {
  override readonly name = 'DockerError'
  readonly status: number
  constructor(status: number, message: string, options: { cause?: unknown } = {}) {
    super(message, options)
    this.status = status
  }
}

export interface Refusal {
  readonly status: number
  readonly message: string
}

/** What a client is told of anything thrown. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof DockerError) return { status: error.status, message: error.message }
  if (error instanceof UserError) {
    const message =
      error.code === 'outOfSequence'
        ? `rpc error: code = Unknown desc = ${error.message}`
        : error.message
    return {
      status: statusByCode[error.code],
      message: error.next ? `${message}. ${error.next}` : message,
    }
  }
  return { status: 500, message: `internal error: ${messageOf(error)}` }
}
