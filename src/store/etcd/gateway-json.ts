import {
  type Compare,
  EtcdError,
  type EtcdMember,
  type EtcdStatus,
  type KeyValue,
  type Op,
  type OpResult,
  type RangeRequest,
  type RangeResult,
  type Txn,
  type TxnResult,
  type WatchEvent,
} from './client.ts'

/**
 * The JSON of etcd's gateway: bytes are base64, 64-bit numbers are text, and what is zero or empty is left out.
 * Source: etcd, api/etcdserverpb/rpc.proto, and the mapping of Protocol Buffers to JSON.
 */

export function toBase64(text: string): string {
  return Buffer.from(text).toString('base64')
}

function fromBase64(text: string): string {
  return Buffer.from(text, 'base64').toString()
}

/** An object of an answer. Throws EtcdError where a field is not what it has to be. */
export interface Reading {
  number(name: string): number
  optionalNumber(name: string): number | undefined
  text(name: string): string
  optionalText(name: string): string | undefined
  /** Base64. */
  decoded(name: string): string
  boolean(name: string): boolean
  part(name: string): Reading | undefined
  parts(name: string): readonly Reading[]
  texts(name: string): readonly string[]
}

export function readingOf(json: unknown): Reading {
  if (typeof json !== 'object' || json === null) {
    throw new EtcdError('outcomeUnknown', 'etcd answered something that is not an object')
  }
  const field = (name: string): unknown => Reflect.get(json, name)
  const reading: Reading = {
    optionalNumber(name) {
      const value = field(name)
      if (value === undefined) return undefined
      const number = Number(value)
      if (!Number.isSafeInteger(number)) throw notUnderstood(name)
      return number
    },
    number: (name) => reading.optionalNumber(name) ?? 0,
    optionalText(name) {
      const value = field(name)
      if (typeof value === 'number') return String(value)
      return typeof value === 'string' ? value : undefined
    },
    text: (name) => reading.optionalText(name) ?? '',
    decoded: (name) => fromBase64(reading.text(name)),
    boolean: (name) => field(name) === true,
    part(name) {
      const value = field(name)
      return typeof value === 'object' && value !== null ? readingOf(value) : undefined
    },
    parts(name) {
      const value = field(name)
      return Array.isArray(value) ? value.map(readingOf) : []
    },
    texts(name) {
      const value = field(name)
      return Array.isArray(value) ? value.map(String) : []
    },
  }
  return reading
}

function notUnderstood(name: string): EtcdError {
  return new EtcdError('outcomeUnknown', `etcd's answer has a ${name} that is not understood`)
}

export function formatTxn({ when, apply, otherwise = [] }: Txn): unknown {
  return {
    compare: when.map(formatCompare),
    success: apply.map(formatOp),
    failure: otherwise.map(formatOp),
  }
}

const results = { '=': 'EQUAL', '!=': 'NOT_EQUAL', '<': 'LESS', '>': 'GREATER' } as const

function formatCompare(compare: Compare): unknown {
  const base = { key: toBase64(compare.key), result: results[compare.is] }
  switch (compare.target) {
    case 'value':
      return { ...base, target: 'VALUE', value: toBase64(compare.to) }
    case 'version':
      return { ...base, target: 'VERSION', version: String(compare.to) }
    case 'createRevision':
      return { ...base, target: 'CREATE', create_revision: String(compare.to) }
    case 'modRevision':
      return { ...base, target: 'MOD', mod_revision: String(compare.to) }
  }
}

function formatOp(op: Op): unknown {
  const key = toBase64(op.key)
  switch (op.type) {
    case 'put':
      return {
        request_put: {
          key,
          value: toBase64(op.value),
          ...(op.leaseId !== undefined && { lease: op.leaseId }),
        },
      }
    case 'delete':
      return {
        request_delete_range: { key, ...(op.end !== undefined && { range_end: toBase64(op.end) }) },
      }
    case 'range':
      return { request_range: formatRange({ ...op, revision: 0 }) }
  }
}

export function formatRange(request: RangeRequest): unknown {
  return {
    key: toBase64(request.key),
    ...(request.end !== undefined && { range_end: toBase64(request.end) }),
    ...(request.limit !== undefined && { limit: String(request.limit) }),
    ...(request.keysOnly && { keys_only: true }),
    ...(request.revision !== undefined && { revision: String(request.revision) }),
  }
}

function revisionOf(answer: Reading): number {
  return answer.part('header')?.number('revision') ?? 0
}

export function parseTxn(answer: Reading, { apply, otherwise = [] }: Txn): TxnResult {
  const succeeded = answer.boolean('succeeded')
  const responses = answer.parts('responses')
  return {
    succeeded,
    revision: revisionOf(answer),
    results: (succeeded ? apply : otherwise).map(({ type }, i): OpResult => {
      const response = responses[i]
      if (type === 'put') return { type }
      if (type === 'delete') {
        return { type, deleted: response?.part('response_delete_range')?.number('deleted') ?? 0 }
      }
      const range = response?.part('response_range')
      return {
        type,
        kvs: range?.parts('kvs').map(parseKeyValue) ?? [],
        more: range?.boolean('more') ?? false,
      }
    }),
  }
}

export function parseRange(answer: Reading): RangeResult {
  return {
    revision: revisionOf(answer),
    kvs: answer.parts('kvs').map(parseKeyValue),
    more: answer.boolean('more'),
  }
}

function parseKeyValue(kv: Reading): KeyValue {
  const leaseId = kv.optionalText('lease')
  return {
    key: kv.decoded('key'),
    value: kv.decoded('value'),
    createRevision: kv.number('create_revision'),
    modRevision: kv.number('mod_revision'),
    version: kv.number('version'),
    ...(leaseId !== undefined && leaseId !== '0' && { leaseId }),
  }
}

export function parseEvents(result: Reading): readonly WatchEvent[] {
  return result.parts('events').map((event): WatchEvent => {
    const kv = event.part('kv')
    if (kv === undefined) throw notUnderstood('event')
    if (event.text('type') !== 'DELETE') return { type: 'put', kv: parseKeyValue(kv) }
    return { type: 'delete', key: kv.decoded('key'), modRevision: kv.number('mod_revision') }
  })
}

export function parseMembers(answer: Reading): readonly EtcdMember[] {
  return answer.parts('members').map(parseMember)
}

export function parseMember(member: Reading | undefined): EtcdMember {
  if (member === undefined) throw notUnderstood('member')
  return {
    memberId: member.text('ID'),
    name: member.text('name'),
    peerUrls: member.texts('peerURLs'),
    clientUrls: member.texts('clientURLs'),
    learner: member.boolean('isLearner'),
  }
}

export function parseStatus(answer: Reading): EtcdStatus {
  const header = answer.part('header')
  const leaderId = answer.optionalText('leader')
  return {
    memberId: header?.text('member_id') ?? '',
    ...(leaderId !== undefined && leaderId !== '0' && { leaderId }),
    version: answer.text('version'),
    revision: revisionOf(answer),
    raftTerm: answer.number('raftTerm'),
    raftIndex: answer.number('raftIndex'),
    dbBytes: answer.number('dbSize'),
    learner: answer.boolean('isLearner'),
    errors: answer.texts('errors'),
  }
}
