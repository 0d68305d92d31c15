"""Connections from C# to the host, the metadata service and every neighbour near by, and sockets below TCP.

Weaker: a wall that stands in the runtime of one language.
Must: no connection, no such socket, and the log says that they were refused.
"""

from contextlib import suppress

from sandpost.selftest.case import Attacker, Case, Untried, expect
from sandpost.selftest.programs import csharp

BESIDE = """
  const System.Net.Sockets.AddressFamily Inet = System.Net.Sockets.AddressFamily.InterNetwork;
  static System.Net.Sockets.Socket Connecting(System.Net.IPEndPoint place) {
    var one = new System.Net.Sockets.Socket(Inet, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
    one.Blocking = false;
    try {
      one.Connect(place);
      return one;
    } catch (System.Net.Sockets.SocketException error) {
      // Any other one is an answer already.
      if (error.SocketErrorCode == System.Net.Sockets.SocketError.WouldBlock
          || error.SocketErrorCode == System.Net.Sockets.SocketError.InProgress) return one;
      one.Close();
      return null;
    }
  }
  static bool Made(int family, int type) {
    try {
      new System.Net.Sockets.Socket((System.Net.Sockets.AddressFamily)family, (System.Net.Sockets.SocketType)type,
                                    System.Net.Sockets.ProtocolType.Icmp).Close();
      return true;
    } catch (Exception) {
      return false;
    }
  }
"""
BODY = """
    byte[] own;
    using (var one = new System.Net.Sockets.Socket(Inet, System.Net.Sockets.SocketType.Dgram, System.Net.Sockets.ProtocolType.Udp)) {
      // Sends nothing: the kernel chooses the address that it would send from.
      one.Connect(System.Net.IPAddress.Parse("198.18.0.1"), 9);
      own = ((System.Net.IPEndPoint)one.LocalEndPoint).Address.GetAddressBytes();
    }
    Func<int, System.Net.IPAddress> near = last => new System.Net.IPAddress(new[] { own[0], own[1], own[2], (byte)last });
    var places = new[] { 22, 53, 80, 2379, 8000, 8721, 9092, %(port)d }
      .Select(port => new System.Net.IPEndPoint(near(own[3] ^ 1), port)).ToList();
    places.Add(new System.Net.IPEndPoint(System.Net.IPAddress.Parse("169.254.169.254"), 80));
    places.Add(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, %(port)d));
    places.AddRange(Enumerable.Range(0, 256).Where(last => last != own[3]).Select(last => new System.Net.IPEndPoint(near(last), 8000)));
    var waiting = new Dictionary<System.Net.Sockets.Socket, string>();
    foreach (var place in places) {
      var one = Connecting(place);
      if (one != null) waiting[one] = place.ToString();
    }
    var reached = new List<string>();
    var end = DateTime.UtcNow.AddSeconds(1.5);
    while (waiting.Count > 0 && DateTime.UtcNow < end) {
      var able = waiting.Keys.ToList();
      System.Net.Sockets.Socket.Select(null, able, null, 100000);
      foreach (var one in able) {
        var error = (int)one.GetSocketOption(System.Net.Sockets.SocketOptionLevel.Socket, System.Net.Sockets.SocketOptionName.Error);
        if (error == 0) reached.Add(waiting[one]);
        waiting.Remove(one);
        one.Close();
      }
    }
    foreach (var one in waiting.Keys) one.Close();
    return new { reached, raw = Made(2, 3), count = places.Count };
"""


def attack(me: Attacker) -> str:
    # Where nobody listens a missing wall would not be seen.
    with suppress(Untried), me.host().listener() as port:
        return _attempt(me, port)
    return _attempt(me, 1)


def _attempt(me: Attacker, port: int) -> str:
    answer = me.call(csharp(BODY % {"port": port}, BESIDE))
    expect(answer.status == 200, answer.body)
    seen = answer.json["seen"]
    expect(not seen["reached"], f"connected: {seen['reached']}")
    # gVisor's own network stack may have it: what it sends passes the same walls.
    expect(not seen["raw"] or me.engine == "runsc", "a raw socket was made")
    return f"no connection to {seen['count']} places"


CASE = Case(
    part="network",
    title="C#: who is near",
    attack=attack,
    log="refused",
    language="csharp",
)
