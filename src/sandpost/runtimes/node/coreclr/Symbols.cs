// What Mono's compiler says of lines, as CoreCLR reads it: a portable PDB instead of an .mdb.

using System;
using System.Collections.Generic;
using System.Collections.Immutable;
using System.IO;
using System.Linq;
using System.Reflection.Metadata;
using System.Reflection.Metadata.Ecma335;
using System.Reflection.PortableExecutable;

public static class Symbols
{
    // The two parts of an .mdb's header: its magic number with version and id, and the places of its tables.
    const int Before = 8 + 4 + 4 + 16;
    const int Sources = 6, Methods = 9, LineBase = 16; // numbers of 4 bytes behind that
    const int MostSources = 64, LongestName = 4096;

    record struct Point(int Document, int Line, int Offset, bool Hidden);

    // Null if `symbols` cannot be read, or are more than a compiler makes of a source: traces have no lines then.
    public static byte[] Portable(byte[] assembly, byte[] symbols)
    {
        try
        {
            using var image = new PEReader(new MemoryStream(assembly));
            return Write(image.GetMetadataReader(), symbols);
        }
        catch (Exception)
        {
            return null;
        }
    }

    static byte[] Write(MetadataReader types, byte[] symbols)
    {
        using var reader = new BinaryReader(new MemoryStream(symbols));
        var header = new int[19];
        reader.BaseStream.Position = Before;
        for (var i = 0; i < header.Length; i++) header[i] = reader.ReadInt32();

        var written = new MetadataBuilder();
        var documents = new Dictionary<int, DocumentHandle>();
        if (header[Sources] > MostSources) throw new FormatException();
        foreach (var (index, offset, _) in Rows(reader, header[Sources], header[Sources + 1], 2))
        {
            reader.BaseStream.Position = offset;
            var name = reader.ReadString();
            if (name.Length > LongestName) throw new FormatException();
            documents[index] = written.AddDocument(written.GetOrAddDocumentName(name), default, default, default);
        }
        var places = Rows(reader, header[Methods], header[Methods + 1], 3).ToDictionary(row => row.First & 0xffffff, row => row.Third);
        var left = symbols.Length; // each point takes a byte at least, unless methods share theirs
        for (var row = 1; row <= types.GetTableRowCount(TableIndex.MethodDef); row++)
        {
            var points = new List<Point>();
            if (places.TryGetValue(row, out var place))
            {
                reader.BaseStream.Position = place;
                points = Read(reader, header[LineBase], header[LineBase + 1], header[LineBase + 2]);
            }
            if ((left -= points.Count) < 0) throw new FormatException();
            if (points.Count == 0) written.AddMethodDebugInformation(default, default);
            else written.AddMethodDebugInformation(documents[points[0].Document], written.GetOrAddBlob(Encode(points, documents)));
        }

        var counts = Enumerable.Range(0, MetadataTokens.TableCount).Select(table => types.GetTableRowCount((TableIndex)table));
        var all = new BlobBuilder();
        new PortablePdbBuilder(written, counts.ToImmutableArray(), default, _ => new BlobContentId(Guid.Empty, 1)).Serialize(all);
        return all.ToArray();
    }

    static List<(int First, int Second, int Third)> Rows(BinaryReader reader, int count, int offset, int columns)
    {
        reader.BaseStream.Position = offset;
        var rows = new List<(int, int, int)>();
        for (var i = 0; i < count; i++) rows.Add((reader.ReadInt32(), reader.ReadInt32(), columns == 3 ? reader.ReadInt32() : 0));
        return rows;
    }

    // A method's program of line numbers, as in DWARF but for the end: of several points at one place the last.
    static List<Point> Read(BinaryReader reader, int lineBase, int lineRange, int opcodeBase)
    {
        var points = new SortedDictionary<int, Point>();
        var now = new Point(1, 1, 0, false);
        for (;;)
        {
            var code = reader.ReadByte();
            if (code >= opcodeBase)
            {
                now.Offset += (code - opcodeBase) / lineRange;
                now.Line += lineBase + (code - opcodeBase) % lineRange;
                points[now.Offset] = now;
                continue;
            }
            switch (code)
            {
                case 0:
                    var end = reader.ReadByte() + reader.BaseStream.Position;
                    code = reader.ReadByte();
                    if (code == 1) return points.Values.ToList();
                    if (code == 0x40) now.Hidden = !now.Hidden;
                    reader.BaseStream.Position = end;
                    break;
                case 1:
                    points[now.Offset] = now;
                    break;
                case 2:
                    now.Offset += reader.Read7BitEncodedInt();
                    break;
                case 3:
                    now.Line += reader.Read7BitEncodedInt();
                    break;
                case 4:
                    now.Document = reader.Read7BitEncodedInt();
                    break;
                case 8:
                    now.Offset += (255 - opcodeBase) / lineRange;
                    break;
                default:
                    throw new FormatException();
            }
        }
    }

    // The blob of a method's sequence points (Portable PDB v1.0). Only lines are known: each point has its first column.
    static BlobBuilder Encode(List<Point> points, Dictionary<int, DocumentHandle> documents)
    {
        var blob = new BlobBuilder();
        blob.WriteCompressedInteger(0); // the signature of locals
        Point? last = null; // that was not hidden
        for (var i = 0; i < points.Count; i++)
        {
            var point = points[i];
            if (i > 0 && point.Document != points[i - 1].Document)
            {
                blob.WriteCompressedInteger(0);
                blob.WriteCompressedInteger(MetadataTokens.GetRowNumber(documents[point.Document]));
            }
            blob.WriteCompressedInteger(i == 0 ? point.Offset : point.Offset - points[i - 1].Offset);
            blob.WriteCompressedInteger(0); // further lines
            if (point.Hidden || point.Line < 1)
            {
                blob.WriteCompressedInteger(0);
                continue;
            }
            blob.WriteCompressedInteger(1); // further columns
            if (last == null) blob.WriteCompressedInteger(point.Line);
            else blob.WriteCompressedSignedInteger(point.Line - last.Value.Line);
            if (last == null) blob.WriteCompressedInteger(1);
            else blob.WriteCompressedSignedInteger(0);
            last = point;
        }
        return blob;
    }
}
