package redisstore

import "github.com/redis/go-redis/v9"

// Numbers of microseconds have 51 bits, so Lua's doubles hold them; they are
// formatted by hand, for Lua would round what it prints to 14 digits. Hash fields
// are removed by HDEL where an older claim may have left them.
const now = `
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local function int(n) return string.format('%.0f', n) end
`

// ARGV: lease in µs, lease in ms, keep in ms, fingerprint, existing only, name.
var claim = redis.NewScript(now + `
local phase, token, attempt, fp, till, result = unpack(
  redis.call('HMGET', KEYS[1], 'phase', 'token', 'attempt', 'fp', 'until', 'result'))
if not token then
  if ARGV[5] == '1' then return {'absent', '', ''} end
  token, attempt = now, 1
else
  if ARGV[4] ~= '' and fp and fp ~= '' and fp ~= ARGV[4] then return {'mismatch', '', ''} end
  if phase == '3' then return {'done', result or '', ''} end
  if phase == '1' and tonumber(till) > now then return {'held', int(tonumber(till) - now), ''} end
  token, attempt = math.max(now, tonumber(token) + 1), tonumber(attempt) + 1
end
redis.call('HSET', KEYS[1], 'phase', '1', 'token', int(token), 'attempt', int(attempt),
  'until', int(now + ARGV[1]), 'keep', ARGV[3], 'name', ARGV[6])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'fp', ARGV[4]) end
redis.call('PEXPIRE', KEYS[1], int(ARGV[2] + ARGV[3]))
return {'claimed', int(token), int(attempt)}
`)

// holds begins the scripts of a claim. ARGV: token. It returns 1 if the record is
// in the given phase already, and 0 if the claim is not held.
func holds(phase string) string {
	return now + `
local state = redis.call('HMGET', KEYS[1], 'token', 'phase', 'keep')
if state[1] ~= ARGV[1] then return 0 end
if state[2] ~= '1' then
  if state[2] == '` + phase + `' then return 1 end
  return 0
end
`
}

// ARGV: token, lease in µs, lease in ms.
var renew = redis.NewScript(holds("1") + `
redis.call('HSET', KEYS[1], 'until', int(now + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], int(ARGV[3] + state[3]))
return 1
`)

// ARGV: token, result, keep in ms.
var complete = redis.NewScript(holds("3") + `
redis.call('HSET', KEYS[1], 'phase', '3', 'result', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
`)

// ARGV: token.
var release = redis.NewScript(holds("2") + `
redis.call('HSET', KEYS[1], 'phase', '2')
return 1
`)
