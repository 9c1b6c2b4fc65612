import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { decode, encode } from 'dns-packet'
import fc from 'fast-check'
import { idFrom } from '../../model/index.ts'
import { backendOf, buildEndpoint, buildNetwork, buildTask } from '../test-objects.ts'
import { Forwarder, frame, parseResolvConf, splitFrames } from './forwarder.ts'
import { indexState, lookUp, pickByShare } from './lookup.ts'
import { encodeAddresses, encodeName, parseQuery, type Query } from './message.ts'
import { ResolverServer } from './server.ts'
import { pagesFolder, renderState, StateReader } from './state-file.ts'
import { buildZones } from './zones.ts'

const front = buildNetwork('front', { subnet: '10.0.1.0/24', gateway: '10.0.1.1' })
const back = buildNetwork('back', { subnet: '10.0.2.0/24', gateway: '10.0.2.1', internal: true })
const ingress = buildNetwork('ingress', {
  subnet: '10.0.0.0/24',
  gateway: '10.0.0.1',
  ingress: true,
})
const web = buildTask('shop_web.1.abc', [
  { network: ingress, address: '10.0.0.5' },
  { network: front, address: '10.0.1.5' },
  { network: back, address: '10.0.2.5' },
])
const db = {
  ...buildTask('shop_db.1.def', [{ network: back, address: '10.0.2.6' }]),
  nameservers: ['9.9.9.9'],
}
const asker = {
  ...buildTask('asker', [{ network: back, address: '10.0.2.7' }]),
  nameservers: ['9.9.9.9', '10.0.2.9'],
}
const state = buildZones({
  networks: [ingress, front, back],
  tasks: [web, db, asker],
  endpoints: [
    buildEndpoint('shop_web', {
      networks: [{ networkId: front.id, vip: '10.0.1.100', aliases: ['WWW', 'site'] }],
      backends: [backendOf(web)],
    }),
    buildEndpoint('shop_db', {
      mode: 'dnsrr',
      networks: [{ networkId: back.id, aliases: ['db'] }],
      backends: [backendOf(db)],
    }),
    buildEndpoint('blog_db', {
      networks: [{ networkId: back.id, vip: '10.0.2.101', aliases: ['db', 'idle'] }],
      backends: [],
    }),
  ],
  neighbours: new Map(
    [{ networkId: back.id, address: '10.0.2.66', names: ['Tool', 'www'] }].map((place) => [
      place.address,
      { ...place, id: place.address, mac: 'm', nodeId: idFrom('n2'), nodeAddress: '192.0.2.2' },
    ]),
  ),
})
const directory = indexState(state)
const ask = (name: string, source: string, type = 'A', gateway = '10.0.2.1') =>
  lookUp(directory, { name, type, class: 'IN' }, source, gateway)
const addresses = (...list: string[]) => ({ type: 'addresses', addresses: list })

describe('names', () => {
  const cases: readonly (readonly [string, string, unknown])[] = [
    ['shop_web', '10.0.1.5', addresses('10.0.1.100')],
    ['www', '10.0.1.5', addresses('10.0.1.100')],
    ['SITE.', '10.0.1.5', addresses('10.0.1.100')],
    ['web.shop', '10.0.1.5', addresses('10.0.1.100')],
    ['tasks.web.shop', '10.0.1.5', addresses('10.0.1.5')],
    ['tasks.shop_web', '10.0.1.5', addresses('10.0.1.5')],
    ['shop_web.1.abc', '10.0.1.5', addresses('10.0.1.5')],
    // One name of two endpoints has both, each with its share: nobody is behind the VIP.
    ['db', '10.0.2.6', { ...addresses('10.0.2.101', '10.0.2.6'), shares: [0, 1] }],
    ['shop_db', '10.0.2.6', addresses('10.0.2.6')],
    // A VIP stays when nobody is behind it; its tasks are none.
    // A plain container on another node, on its network alone.
    ['tool', '10.0.2.6', addresses('10.0.2.66')],
    ['tool', '10.0.1.5', addresses('10.0.2.66')],
    ['www', '10.0.2.6', addresses('10.0.2.66')],
    ['idle', '10.0.2.6', addresses('10.0.2.101')],
    ['tasks.idle', '10.0.2.6', { type: 'empty' }],
    // Only what is on the asking container's networks.
    ['shop_web', '10.0.2.6', { type: 'unknown' }],
    // Who is only on internal networks asks nobody outside, but may ask a nameserver there.
    ['example.com', '10.0.2.6', { type: 'unknown' }],
    ['example.com', '10.0.2.7', { type: 'forward', nameservers: ['10.0.2.9'] }],
    ['example.com', '10.0.2.77', { type: 'unknown' }],
    ['example.com', '10.0.1.5', { type: 'forward', nameservers: [] }],
    // Unknown by address, but on the network it asks on.
    ['shop_db', '10.0.2.77', addresses('10.0.2.6')],
    ['shop_db', '172.17.0.2', { type: 'refused' }],
    // The host itself, about the network whose gateway it asks.
    ['shop_db', '127.0.0.1', addresses('10.0.2.6')],
    ['toString', '10.0.2.6', { type: 'unknown' }],
    ['__proto__', '10.0.1.5', { type: 'forward', nameservers: [] }],
  ]
  for (const [name, source, want] of cases) {
    test(`${name} from ${source}`, () => assert.deepEqual(ask(name, source), want))
  }

  test('a name of several VIPs answers with one, by what is behind each', () => {
    const vips = ['10.0.1.1', '10.0.1.2', '10.0.1.3']
    const drawn = Array.from({ length: 10 }, (_, draw) => pickByShare(vips, [9, 0, 1], () => draw))
    assert.deepEqual(drawn, [...Array.from({ length: 9 }, () => vips[0]), vips[2]])
    assert.equal(
      pickByShare(vips, [0, 0, 0], (limit) => limit - 1),
      vips[2],
      'any, while nobody is behind one',
    )
  })

  test('a container with several networks finds the names of all', () => {
    assert.deepEqual(ask('shop_web', '10.0.2.5'), addresses('10.0.1.100'))
    assert.deepEqual(ask('shop_db', '10.0.1.5'), addresses('10.0.2.6'))
  })

  test('a known name has nothing of another type, and an address has its name', () => {
    assert.deepEqual(ask('db', '10.0.2.6', 'AAAA'), { type: 'empty' })
    assert.deepEqual(ask('100.1.0.10.in-addr.arpa', '10.0.1.5', 'PTR'), {
      type: 'name',
      name: 'shop_web',
    })
    assert.deepEqual(ask('6.2.0.10.in-addr.arpa', '10.0.2.6', 'PTR'), {
      type: 'name',
      name: 'shop_db.1.def',
    })
    assert.deepEqual(ask('200.2.0.10.in-addr.arpa', '10.0.2.6', 'PTR'), { type: 'unknown' })
    assert.equal(ask('8.8.8.8.in-addr.arpa', '10.0.1.5', 'PTR').type, 'forward')
  })
})

function query(name: string, type: 'A' | 'PTR' = 'A', edns = false): Query {
  const bytes = encode({
    type: 'query',
    id: 4711,
    flags: 256,
    questions: [{ name, type }],
    ...(edns && {
      additionals: [
        {
          name: '.',
          type: 'OPT',
          udpPayloadSize: 4096,
          flags: 0,
          options: [],
          extendedRcode: 0,
          ednsVersion: 0,
          flag_do: false,
        },
      ],
    }),
  })
  const parsed = parseQuery(bytes)
  assert.ok(typeof parsed === 'object')
  return parsed
}

function codeOf({ flags = 0 }: { flags?: number | undefined }): number {
  return flags & 15
}

describe('messages', () => {
  test('an answer is what another implementation reads back', () => {
    const label = fc.stringMatching(/^[a-z0-9_-]{1,20}$/)
    const list = fc.array(fc.ipV4(), { maxLength: 10 })
    fc.assert(
      fc.property(
        fc.array(label, { minLength: 1, maxLength: 4 }),
        list,
        fc.boolean(),
        (labels, given, edns) => {
          const name = labels.join('.')
          const answer = decode(encodeAddresses(query(name, 'A', edns), given, 512))
          assert.equal(answer.id, 4711)
          assert.equal(answer.type, 'response')
          assert.equal(codeOf(answer), 0)
          assert.equal(answer.questions?.[0]?.name, name)
          const data = (answer.answers ?? []).map((record) => ('data' in record ? record.data : ''))
          assert.deepEqual(data, given)
          for (const record of answer.answers ?? []) assert.equal(record.name, name)
          assert.equal(answer.additionals?.length ?? 0, edns ? 1 : 0)
        },
      ),
    )
  })

  test('what does not fit is left out, and said so', () => {
    const many = Array.from({ length: 200 }, (_, index) => `10.0.${index >> 8}.${index & 255}`)
    const bytes = encodeAddresses(query('tasks.web'), many, 512)
    assert.ok(bytes.length <= 512)
    const cut = decode(bytes)
    assert.ok(cut.flag_tc)
    assert.ok((cut.answers?.length ?? 0) > 25)
    const whole = decode(encodeAddresses(query('tasks.web'), many, 65_535))
    assert.equal(whole.answers?.length, 200)
    assert.ok(!whole.flag_tc)
  })

  test('a name is an answer too', () => {
    const [record] =
      decode(encodeName(query('1.0.0.10.in-addr.arpa', 'PTR'), 'a.b', 512)).answers ?? []
    assert.equal(record && 'data' in record ? record.data : '', 'a.b')
  })

  test('no bytes at all bring it down', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), (bytes) => {
        const parsed = parseQuery(Buffer.from(bytes))
        if (typeof parsed === 'object') encodeAddresses(parsed, ['10.0.0.1'], 512)
      }),
      { numRuns: 2000 },
    )
    // Also damaged real ones.
    const real = query('tasks.web', 'A', true).bytes
    fc.assert(
      fc.property(
        fc.nat(real.length - 1),
        fc.nat(255),
        fc.nat(real.length),
        (at, value, length) => {
          const bytes = Buffer.from(real)
          bytes[at] = value
          const parsed = parseQuery(bytes.subarray(0, length))
          if (typeof parsed === 'object') encodeAddresses(parsed, ['10.0.0.1'], 512)
        },
      ),
      { numRuns: 5000 },
    )
  })

  test('frames are found however the stream is cut', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 40 })), fc.nat(200), (messages, cut) => {
        const stream = Buffer.concat(messages.map((message) => frame(Buffer.from(message))))
        const first = splitFrames(stream.subarray(0, cut))
        const second = splitFrames(Buffer.concat([first.rest, stream.subarray(cut)]))
        const found = [...first.frames, ...second.frames].map((bytes) => [...bytes])
        assert.deepEqual(
          found,
          messages.map((message) => [...message]),
        )
        assert.equal(second.rest.length, 0)
      }),
    )
  })
})

describe('the state', () => {
  test('is read as it was written, and what did not change is not read again', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'resolver-state-'))
    t.after(() => rmSync(folder, { recursive: true }))
    const path = join(folder, 'state')
    const reader = new StateReader(path)
    const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))
    const { head, pages } = renderState(state)
    const pagesPath = join(folder, pagesFolder)
    mkdirSync(pagesPath)
    for (const [name, text] of pages) writeFileSync(join(pagesPath, name), text)
    writeFileSync(path, head)
    const first = reader.read()
    assert.deepEqual(plain(first), plain(state))
    const second = reader.read()
    assert.equal(second.networks[1]?.pages[0], first.networks[1]?.pages[0])
    // What was read before is not looked for again.
    for (const name of pages.keys()) writeFileSync(join(pagesPath, name), '{}')
    assert.deepEqual(plain(reader.read()), plain(state))
    assert.throws(() => new StateReader(path).read(), /damaged/)
    writeFileSync(path, head.slice(0, -1))
    assert.throws(() => reader.read())
    writeFileSync(path, head.replace(/"pages":\["\w+"/, '"pages":["../x"'))
    assert.throws(() => reader.read(), /damaged/)
  })

  test('a change of one endpoint changes one page', () => {
    const endpoints = Array.from({ length: 200 }, (_, number) =>
      buildEndpoint(`service${number}`, { networks: [{ networkId: back.id, aliases: [] }] }),
    )
    const zoneOf = (list: typeof endpoints) =>
      buildZones({ networks: [back], tasks: [], endpoints: list }).networks[0]
    const before = new Set(zoneOf(endpoints)?.pages)
    const changed = endpoints.map((one, at) =>
      at === 77 ? { ...one, backends: [backendOf(db)] } : one,
    )
    // The page of the node's own tasks is always made anew.
    assert.equal(zoneOf(changed)?.pages.filter((page) => !before.has(page)).length, 2)
  })
})

describe('the server', () => {
  const zone = {
    id: 'z',
    subnet: '127.0.0.0/8',
    gateway: '127.0.0.1',
    internal: false,
    pages: [
      {
        declared: { web: ['10.0.0.1', '10.0.0.2'] },
        derived: {},
        hosts: {},
        reverse: {},
        weights: {},
      },
    ],
  }
  const served = (clients: Record<string, { networks: string[]; nameservers: string[] }>) => ({
    version: 5 as const,
    networks: [zone],
    clients,
  })

  function open(): ResolverServer {
    let turn = 0
    const forwarder = new Forwarder({ resolvConf: '/nonexistent', nowMs: () => 0 })
    return new ResolverServer({ forwarder, below: (limit) => turn++ % limit, port: 0 })
  }

  test('answers over udp and tcp in another order each time, and says what it can not know', async () => {
    const server = open()
    assert.deepEqual(await server.serve(served({})), {})
    assert.deepEqual(await server.serve(served({})), {})
    const port = server.portOf('127.0.0.1') ?? 0
    const socket = createSocket('udp4')
    const once = async (bytes: Buffer) =>
      decode(
        await new Promise<Buffer>((resolve) => {
          socket.once('message', resolve)
          socket.send(bytes, port, '127.0.0.1')
        }),
      )
    const firsts = new Set<string>()
    for (let round = 0; round < 2; round++) {
      const [record] = (await once(query('web').bytes)).answers ?? []
      firsts.add(record?.type === 'A' ? record.data : '')
    }
    assert.deepEqual([...firsts].toSorted(), ['10.0.0.1', '10.0.0.2'])
    // Nobody to ask: it fails, at once.
    assert.equal(codeOf(await once(query('example.com').bytes)), 2)
    // A header alone is no question.
    assert.equal(codeOf(await once(Buffer.from('000101000000000000000000', 'hex'))), 1)
    socket.close()

    const stream = connect({ host: '127.0.0.1', port })
    stream.write(Buffer.concat([frame(query('web').bytes), frame(query('web').bytes)]))
    let received = Buffer.alloc(0)
    for await (const chunk of stream) {
      received = Buffer.concat([received, chunk])
      if (splitFrames(received).frames.length === 2) break
    }
    assert.equal(splitFrames(received).frames.length, 2)
    server.close()
  })

  test('questions that come while it has no time are kept, and answered', async () => {
    const server = open()
    await server.serve(served({}))
    const socket = createSocket({ type: 'udp4', recvBufferSize: 1 << 20 })
    await new Promise<void>((resolve) => socket.bind(0, '127.0.0.1', resolve))
    const count = 500
    let answers = 0
    const all = new Promise<void>((resolve) => {
      socket.on('message', () => {
        answers++
        if (answers === count) resolve()
      })
    })
    // This process is the server's, too: all are sent before it looks at any.
    const port = server.portOf('127.0.0.1') ?? 0
    for (let sent = 0; sent < count; sent++) socket.send(query('web').bytes, port, '127.0.0.1')
    await Promise.race([all, sleep(60_000, undefined, { ref: false })])
    socket.close()
    server.close()
    assert.equal(answers, count)
  })

  test('a gateway that is not there yet is named, and listened on at the next call', async () => {
    const server = open()
    const absent = { ...zone, id: 'y', gateway: '203.0.113.77' }
    const failures = await server.serve({ version: 5, networks: [zone, absent], clients: {} })
    assert.match(failures['203.0.113.77'] ?? '', /EADDRNOTAVAIL/)
    assert.deepEqual(server.listening, ['127.0.0.1'])
    await server.serve({ version: 5, networks: [], clients: {} })
    assert.deepEqual(server.listening, [])
    server.close()
  })

  test('other names are asked for outside, by udp and by tcp', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'net-resolver-'))
    const resolvConf = join(directory, 'resolv.conf')
    // The first is the resolver itself, which it does not ask.
    writeFileSync(resolvConf, 'nameserver 127.0.0.1\nnameserver 127.0.0.2\n')
    const upstream = createSocket('udp4')
    await new Promise<void>((resolve) => upstream.bind(0, '127.0.0.2', resolve))
    const { port } = upstream.address()
    const answerTo = (bytes: Buffer, address: string) => {
      const parsed = parseQuery(bytes)
      assert.ok(typeof parsed === 'object')
      return encodeAddresses(parsed, [address], 512)
    }
    upstream.on('message', (bytes, from) => {
      // An answer to something else comes first and is not taken.
      const other = answerTo(bytes, '6.6.6.6')
      other.writeUInt16BE(1, 0)
      upstream.send(other, from.port, from.address)
      upstream.send(answerTo(bytes, '1.2.3.4'), from.port, from.address)
    })
    const stream = createServer((socket) => {
      socket.once('data', (bytes) => {
        socket.end(frame(answerTo(Buffer.from(bytes).subarray(2), '1.2.3.5')))
      })
    })
    await new Promise<void>((resolve) => stream.listen(port, '127.0.0.2', resolve))
    try {
      const forwarder = new Forwarder({ resolvConf, nowMs: () => 0, port })
      forwarder.own = new Set(['127.0.0.1'])
      for (const [transport, want] of [
        ['udp', '1.2.3.4'],
        ['tcp', '1.2.3.5'],
      ] as const) {
        const answer = await forwarder.ask(query('example.com').bytes, [], transport)
        assert.ok(answer)
        const [record] = decode(answer).answers ?? []
        assert.equal(record && 'data' in record ? record.data : '', want)
      }
    } finally {
      upstream.close()
      stream.close()
      rmSync(directory, { recursive: true })
    }
  })

  test('nameservers are read from resolv.conf', () => {
    const text = '# c\nsearch a b\nnameserver 1.1.1.1\n nameserver\t::1 \noptions x\nnameserver'
    assert.deepEqual(parseResolvConf(text), ['1.1.1.1', '::1'])
  })
})
