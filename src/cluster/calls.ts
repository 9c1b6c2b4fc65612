import { type Clock, UserError, within } from '../base/index.ts'
import { type Call, callMessage, parseAnswer } from './messages.ts'
import type { Fields } from './read.ts'
import type { MessageStream, Transport, Trust } from './transport.ts'

/** What it takes to call a manager. */
export interface CallWorld {
  readonly transport: Transport
  readonly clock: Clock
  readonly skepVersion: string
}

/** For one call to be answered, in ms. */
const answerMs = 15_000

/** One after the other, until one answers. A refusal is an answer; silence is not. */
export async function firstOf<T>(
  addresses: readonly string[],
  ask: (address: string) => Promise<T>,
): Promise<T> {
  let failure: unknown
  for (const address of addresses) {
    try {
      return await ask(address)
    } catch (error) {
      if (!(error instanceof UserError && error.code === 'unavailable')) throw error
      failure ??= error
    }
  }
  throw failure ?? new UserError('unavailable', 'no manager is known to this node')
}

/** What a manager answered, and this host's address as that connection had it. */
export interface Answered {
  readonly fields: Fields
  readonly localAddress: string
}

export async function callOnce(
  { transport, clock, skepVersion }: CallWorld,
  address: string,
  trust: Trust,
  call: Call,
  answer: string,
  signal: AbortSignal,
  waitMs = answerMs,
): Promise<Answered> {
  return within(clock, waitMs, async (late) => {
    const ended = AbortSignal.any([signal, late])
    let stream: MessageStream | undefined
    try {
      stream = await transport.connect(address, trust, ended)
      await stream.send(callMessage(call, skepVersion))
      const { localAddress } = stream
      return { fields: parseAnswer(await stream.receive(ended), answer), localAddress }
    } catch (error) {
      if (!late.aborted) throw error
      throw new UserError('unavailable', `${address} did not answer in ${waitMs / 1000} s`, {
        next: 'Look into the log of the daemon there.',
        cause: error,
      })
    } finally {
      stream?.close()
    }
  })
}
