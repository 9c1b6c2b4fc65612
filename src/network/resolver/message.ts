import { type DecodedPacket, decode, encodingLength } from 'dns-packet'
import { parseIpv4, parseWide } from '../../model/index.ts'

/** How long a client may keep an answer, in s. Short: tasks come and go. */
export const answerTtlSeconds = 2

/** Largest message over udp that every client takes, in bytes. Source: RFC 1035, 4.2.1. */
const udpBytesDefault = 512
/** What fits one frame with certainty, whatever a client says it takes. */
const udpBytesMax = 1232

export const responseCodes = {
  ok: 0,
  badFormat: 1,
  failed: 2,
  unknownName: 3,
  notImplemented: 4,
  refused: 5,
} as const
export type ResponseCode = (typeof responseCodes)[keyof typeof responseCodes]

export interface Query {
  readonly bytes: Buffer
  readonly name: string
  readonly type: string
  readonly class: string
  /** Where the question ends in `bytes`. */
  readonly questionEnd: number
  /** It carries EDNS(0), and so does its answer. */
  readonly hasEdns: boolean
  /** Largest answer over udp, in bytes. */
  readonly udpBytes: number
}

/**
 * Reads a query. `undefined`: nothing to answer (an answer, or no message at all); a number: the code to answer with.
 */
export function parseQuery(bytes: Buffer): Query | ResponseCode | undefined {
  if (bytes.length < 12 || (bytes.readUInt8(2) & 0x80) !== 0) return undefined
  if ((bytes.readUInt8(2) & 0x78) !== 0) return responseCodes.notImplemented
  if (bytes.readUInt16BE(4) !== 1) return responseCodes.badFormat
  let packet: DecodedPacket
  try {
    packet = decode(bytes)
  } catch {
    return responseCodes.badFormat
  }
  const question = packet.questions?.[0]
  if (!question) return responseCodes.badFormat
  // A question of a query holds no pointers, so its length follows from what it says.
  const questionEnd =
    12 +
    encodingLength({ type: 'query', questions: [question] }) -
    encodingLength({ type: 'query' })
  if (questionEnd > bytes.length) return responseCodes.badFormat
  const edns = packet.additionals?.find(({ type }) => type === 'OPT')
  const offered = edns && 'udpPayloadSize' in edns ? Number(edns.udpPayloadSize) : udpBytesDefault
  return {
    bytes,
    name: question.name,
    type: question.type,
    class: question.class ?? 'IN',
    questionEnd,
    hasEdns: edns !== undefined,
    udpBytes: Math.min(Math.max(offered, udpBytesDefault), udpBytesMax),
  }
}

/** Answers with addresses (A or AAAA, as they are) as many as fit in `bytesMax`; the client is told when some did not. */
export function encodeAddresses(
  query: Query,
  addresses: readonly string[],
  bytesMax: number,
): Buffer {
  const records = addresses.flatMap((address) => {
    const number = parseIpv4(address)
    if (number === undefined) {
      const wide = parseWide(address)
      if (wide === undefined) return []
      const bytes = Buffer.from(wide.toString(16).padStart(32, '0'), 'hex')
      return [record(recordTypes.wideAddress, bytes)]
    }
    const data = Buffer.alloc(4)
    data.writeUInt32BE(number)
    return [record(recordTypes.address, data)]
  })
  return encode(query, responseCodes.ok, records, bytesMax)
}

/** Answers with a name (PTR). */
export function encodeName(query: Query, name: string, bytesMax: number): Buffer {
  const labels = name.split('.').filter((label) => label !== '' && label.length <= 63)
  const data = Buffer.concat([
    ...labels.map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.from([0]),
  ])
  return encode(query, responseCodes.ok, [record(recordTypes.pointer, data)], bytesMax)
}

/** Answers with a code alone: no such name, nothing of that type, failed. */
export function encodeCode(query: Query, code: ResponseCode): Buffer {
  return encode(query, code, [], udpBytesMax)
}

/** The answer to what is not even a query we can read: its header, with the code. */
export function encodeUnreadable(bytes: Buffer, code: ResponseCode): Buffer {
  const answer = Buffer.alloc(12)
  bytes.copy(answer, 0, 0, 4)
  answer.writeUInt8((bytes.readUInt8(2) | 0x80) & 0xf9, 2)
  answer.writeUInt8(0x80 | code, 3)
  return answer
}

const recordTypes = { address: 1, pointer: 12, wideAddress: 28 } as const

/** A record of the asked name, which stands at byte 12 of every message. */
function record(type: number, data: Buffer): Buffer {
  const head = Buffer.alloc(12)
  head.writeUInt16BE(0xc00c, 0)
  head.writeUInt16BE(type, 2)
  head.writeUInt16BE(1, 4)
  head.writeUInt32BE(answerTtlSeconds, 6)
  head.writeUInt16BE(data.length, 10)
  return Buffer.concat([head, data])
}

const ednsRecord = Buffer.from([0, 0, 41, udpBytesMax >> 8, udpBytesMax & 255, 0, 0, 0, 0, 0, 0])

function encode(
  query: Query,
  code: ResponseCode,
  records: readonly Buffer[],
  bytesMax: number,
): Buffer {
  const tail = query.hasEdns ? ednsRecord : Buffer.alloc(0)
  const kept: Buffer[] = []
  let length = query.questionEnd + tail.length
  for (const item of records) {
    if (length + item.length > bytesMax) break
    length += item.length
    kept.push(item)
  }
  const isCut = kept.length < records.length
  const head = Buffer.from(query.bytes.subarray(0, query.questionEnd))
  // QR, AA, and RD as it was asked; RA. Source: RFC 1035, 4.1.1.
  head.writeUInt8(0x84 | (head.readUInt8(2) & 0x01) | (isCut ? 0x02 : 0), 2)
  head.writeUInt8(0x80 | code, 3)
  head.writeUInt16BE(1, 4)
  head.writeUInt16BE(kept.length, 6)
  head.writeUInt16BE(0, 8)
  head.writeUInt16BE(query.hasEdns ? 1 : 0, 10)
  return Buffer.concat([head, ...kept, tail])
}
