import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { messageOf, UserError } from '../base/index.ts'
import { renderTemplate, type TemplateContext, validateTemplate } from './template.ts'

const context: TemplateContext = {
  Service: { ID: 's1', Name: 'web', Labels: { tier: 'front', 'a.b': 'dotted' } },
  Node: { ID: 'n1', Hostname: 'host-1', Platform: { Architecture: 'x86_64', OS: 'linux' } },
  Task: { ID: 't1', Name: 'web.3.t1', Slot: '3' },
}
const payload = {
  secret: (target: string) => `<secret ${target}>`,
  config: (target: string) => `<config ${target}>`,
  env: (name: string) => `<env ${name}>`,
}

describe('renderTemplate', () => {
  for (const [text, want] of [
    ['plain', 'plain'],
    ['{{.Node.Hostname}}', 'host-1'],
    ['{{ .Node.ID }}-{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}', 'n1-linux/x86_64'],
    ['{{.Service.ID}} {{.Service.Name}}', 's1 web'],
    ['{{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}', 't1 web.3.t1 3'],
    ['{{.Service.Labels}}', 'map[a.b:dotted tier:front]'],
    ['{{.Service.Labels.tier}}', 'front'],
    ['{{index .Service.Labels "a.b"}}', 'dotted'],
    ['{{index .Service.Labels "none"}}|', '|'],
    ['{{join "-" .Service.Name .Task.Slot "x"}}', 'web-3-x'],
    ['{{.Task.Slot | printf "%03s"}}', '003'],
    ['{{printf "%s-%d-%q" .Service.Name 7 "a\\"b"}}', 'web-7-"a\\"b"'],
    ['{{if eq .Task.Slot "3"}}three{{else}}other{{end}}', 'three'],
    ['{{if eq .Task.Slot "1"}}a{{else if eq .Task.Slot "3"}}b{{else}}c{{end}}', 'b'],
    ['{{if and .Service.Name (not false)}}y{{end}}', 'y'],
    ['{{with index .Service.Labels "none"}}x{{else}}{{.Task.Slot}}{{end}}', '3'],
    ['{{with .Node}}{{.Hostname}} {{$.Task.Slot}}{{end}}', 'host-1 3'],
    ['{{range $k, $v := .Service.Labels}}{{$k}}={{$v}};{{end}}', 'a.b=dotted;tier=front;'],
    ['{{$x := .Task.Slot}}{{$x}}{{if true}}{{$x = "9"}}{{end}}{{$x}}', '39'],
    ['a  {{- .Task.Slot -}}  b', 'a3b'],
    ['a {{/* nothing */ -}} b', 'a b'],
    ['a {{- /* nothing */ -}} b', 'ab'],
    ['{{`{{raw}}`}}{{"}}"}}', '{{raw}}}}'],
    ['{{len .Service.Name}}{{or "" "d"}}{{urlquery "a b"}}', '3da+b'],
    ['{{(index .Service.Labels "tier") | printf "%s!"}}', 'front!'],
  ] as const) {
    test(`${text} is ${want}`, () => assert.equal(renderTemplate(text, context), want))
  }

  test('data may ask for secrets, configs and env', () => {
    const text = 'p={{secret "db"}} {{config "c" | printf "[%s]"}} {{env "HOME"}}'
    assert.equal(renderTemplate(text, context, payload), 'p=<secret db> [<config c>] <env HOME>')
  })

  for (const [text, words] of [
    ['{{.Node.Nope}}', /\{\{\.Node\.Nope\}\}.*Nope/],
    ['{{.Service.Labels.none}}', /no label "none"/],
    ['{{nope 1}}', /function "nope" is not supported/],
    ['{{secret "x"}}', /secrets and configs only/],
    ['{{template "x"}}', /template/],
    ['{{if true}}x', /has no \{\{end\}\}/],
    ['{{end}}', /unexpected/],
    ['{{.Task.Slot', /unclosed/],
    ['{{.Task.Slot "x"}}', /no function/],
    ['{{$nope}}', /undefined variable/],
    ['{{eq 1 "1"}}', /incompatible/],
    ['{{ | print}}', /missing value/],
    ['{{.Constructor}} {{.__proto__}}', /no field/],
    ['{{index .Service.Labels 3}}', /can't index/],
  ] as const) {
    test(`${text} is refused by name`, () => {
      assert.throws(() => renderTemplate(text, context), { code: 'invalidInput', message: words })
    })
  }

  test('a template cannot run for ever', () => {
    const text = '{{range 1000}}{{range 1000}}x{{end}}{{end}}'
    assert.throws(() => renderTemplate(text, context), { message: /too many steps/ })
  })

  test('text without actions stays as it is, and any text gives text or a UserError', () => {
    const pieces = '{{ }} . " ` ( ) | if end else range $x := .Service .Labels index 1 /* */ x \\'
    const piece = fc.constantFrom(...pieces.split(' '), ' ', '- ', ' -', '\n')
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 14 }), (parts) => {
        const text = parts.join('')
        for (const work of [renderTemplate, () => validateTemplate(text, 'payload')]) {
          try {
            const rendered = work(text, context, payload)
            if (!text.includes('{{') && rendered !== undefined) assert.equal(rendered, text)
          } catch (error) {
            assert.ok(error instanceof UserError, `${text}: ${messageOf(error)}`)
          }
        }
      }),
      { numRuns: 2000 },
    )
  })
})

describe('validateTemplate', () => {
  for (const text of [
    '{{.Node.Hostname}}-{{.Task.Slot}}',
    '{{.Service.Labels.any}}{{index .Service.Labels "x"}}',
    '{{if .Service.Labels.x}}{{.Node.ID}}{{end}}{{range .Service.Labels}}{{.}}{{end}}',
  ]) {
    test(`accepts ${text}`, () => validateTemplate(text, 'text'))
  }
  test('sees what is wrong in a branch that is not taken', () => {
    assert.throws(() => validateTemplate('{{if false}}{{.Nope}}{{end}}', 'text'), {
      message: /Nope/,
    })
    assert.throws(() => validateTemplate('{{if true}}{{else}}{{nope}}{{end}}', 'text'), {
      message: /nope/,
    })
  })
  test('knows secret, config and env in payloads only', () => {
    validateTemplate('{{secret "a"}}{{config "b"}}{{env "c"}}', 'payload')
    assert.throws(() => validateTemplate('{{env "c"}}', 'text'), { code: 'invalidInput' })
  })
})
