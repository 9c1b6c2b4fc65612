/**
 * Bundles Skep into `dist/`: `skep.js`, the parts it loads when they are needed, and one file for each worker thread.
 *
 * A worker is started with `new Worker(new URL('./x-worker.ts', import.meta.url))`; the bundle says `./x-worker.js`
 * there. Everything lies flat in `dist/`, so a URL that is relative to any of the files is right in all of them.
 */
import { glob, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { basename, resolve } from 'node:path'
import { build, type Plugin } from 'esbuild'

const root = resolve(import.meta.dirname, '..')
const out = resolve(root, 'dist')
const next = resolve(root, '.cache/dist')

const workerUrl =
  /(new URL\(\s*['"]\.\/(?:[^'"/]+\/)*)([^'"/]+-worker)\.ts(['"],\s*import\.meta\.url)/g
const workerUrls: Plugin = {
  name: 'worker-urls',
  setup(bundler) {
    bundler.onLoad({ filter: /[/\\]src[/\\].*\.ts$/ }, async ({ path }) => ({
      loader: 'ts',
      contents: (await readFile(path, 'utf8')).replace(
        workerUrl,
        (_, _before, name, after) => `new URL('./${name}.js${after}`,
      ),
    }))
  },
}

const entryPoints: Record<string, string> = {
  skep: resolve(root, 'src/cli/main.ts'),
  // A process of its own, started by the data plane.
  'resolver-main': resolve(root, 'src/network/resolver/resolver-main.ts'),
}
for await (const file of glob('src/**/*-worker.ts', { cwd: root })) {
  const name = basename(file, '.ts')
  if (name in entryPoints) throw new Error(`two workers are called ${name}: rename ${file}`)
  entryPoints[name] = resolve(root, file)
}

await rm(next, { recursive: true, force: true })
await build({
  absWorkingDir: root,
  entryPoints,
  outdir: next,
  chunkNames: 'part-[hash]',
  bundle: true,
  splitting: true,
  minifySyntax: true,
  platform: 'node',
  format: 'esm',
  target: 'node24',
  sourcemap: true,
  sourcesContent: false,
  legalComments: 'none',
  plugins: [workerUrls],
  // Packages in CommonJS call `require` for Node's own modules.
  banner: {
    js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
  },
  logLevel: 'warning',
})
await writeFile(resolve(next, 'package.json'), '{ "type": "module" }\n')
// A daemon that is starting finds the old bundle or the new one, and never half of one.
await rm(out, { recursive: true, force: true })
await rename(next, out)
